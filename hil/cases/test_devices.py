"""Linux' other virtual cameras: vimc, a chain of sensor, debayer and scaler; v4l2loopback, which comes and goes at run time."""

from pathlib import Path

import pytest
from mos_hil import film
from mos_hil.board import Board
from mos_hil.recorder import ARCHIVE, HOME, Recorder, configuration

pytestmark = pytest.mark.lg_feature("ssh")

LOOP = "/dev/video50"
SIZE = "width=320,height=240"


def _node(board: Board, name: str) -> str:
    return board.run(f"for d in /sys/class/video4linux/video*; do [ \"$(cat $d/name)\" != '{name}' ] || echo /dev/${{d##*/}}; done").strip()


def _seen(recorder: Recorder, lens: str, figures: dict, folder: Path) -> film.Film:
    """A segment, a clip of it and a picture of it, each decoded on the host."""
    # Long enough for a clip: a source that begins slowly begins with short ones.
    segment = recorder.wait_closed(lens, long=2)[0]
    seen = film.look(recorder.fetch(segment, folder))
    recorder.do(f"clip {segment['id']} --from 0.5 --to 1.5 -o {HOME}/{lens}.mp4")
    recorder.do(f"snapshot {segment['id']} --at 0 -o {HOME}/{lens}.jpg")
    for file in (f"{lens}.mp4", f"{lens}.jpg"):
        recorder.board.get(f"{HOME}/{file}", folder / file)
    clip, picture = film.look(folder / f"{lens}.mp4"), film.look(folder / f"{lens}.jpg")
    figures.update(picture=f"{seen.width}x{seen.height}", frames=len(seen.times), clip_frames=len(clip.times))
    assert (picture.width, picture.height) == (seen.width, seen.height) == (clip.width, clip.height)
    return seen


@pytest.mark.lg_feature("vimc")
def test_vimc_records_clips_and_snapshots(recorder: Recorder, figures: dict, tmp_path: Path) -> None:
    board = recorder.board
    board.run("modprobe -r vimc; modprobe vimc && udevadm settle")
    try:
        # The chain as the kernel's documentation sets it up (admin-guide/media/vimc.rst), without its crop.
        for pad in (
            '"Sensor A":0[fmt:SBGGR8_1X8/320x240]',
            '"Debayer A":0[fmt:SBGGR8_1X8/320x240]',
            '"Scaler":0[fmt:RGB888_1X24/320x240]',
            '"Scaler":0[crop:(0,0)/320x240]',
            '"Scaler":1[fmt:RGB888_1X24/320x240]',
        ):
            board.run(f"media-ctl -d platform:vimc -V '{pad}'")
        # The chain starts only if every capture node at it fits, this one of the sensor's raw pictures too.
        board.run(f"v4l2-ctl -d {_node(board, 'Raw Capture 0')} -v {SIZE},pixelformat=BA81")
        node = _node(board, "RGB/YUV Capture")
        board.run(f"v4l2-ctl -d {node} -v {SIZE},pixelformat=RGB3")
        recorder.start(configuration({"chain": f"v4l2:{node}?width=320&height=240"}))
        recorder.wait_stored("chain", 30, 120)
        seen = _seen(recorder, "chain", figures, tmp_path)
        assert (seen.width, seen.height) == (320, 240)
        recorder.stop()
        figures["check"] = recorder.check(ARCHIVE).splitlines()[0]
    finally:
        recorder.end()
        board.try_run("modprobe -r vimc")


def _feed(board: Board) -> None:
    """Writes pictures into the loopback device until the device goes."""
    board.run(
        f"setsid gst-launch-1.0 -q videotestsrc is-live=true pattern=ball ! video/x-raw,format=YUY2,{SIZE},framerate=10/1"
        f" ! v4l2sink device={LOOP} > /tmp/feed.log 2>&1 < /dev/null & echo $! > /tmp/feed.pid"
    )
    board.wait_for("pictures in the loopback device", 60, lambda: board.try_run(f"v4l2-ctl -d {LOOP} --get-fmt-video | grep -q YUYV")[2] == 0)


def _stop_feed(board: Board) -> None:
    board.try_run("kill $(cat /tmp/feed.pid)")
    board.wait_for("the end of the feed", 30, lambda: board.try_run("kill -0 $(cat /tmp/feed.pid)")[2] != 0)


@pytest.mark.lg_feature("v4l2loopback")
def test_a_loopback_device_records_and_is_deleted_and_added(recorder: Recorder, figures: dict, tmp_path: Path) -> None:
    board = recorder.board
    board.run(f"modprobe -r v4l2loopback; modprobe v4l2loopback devices=0 && v4l2loopback-ctl add -n fed -x 1 {LOOP} && udevadm settle")
    try:
        _feed(board)
        recorder.start(configuration({"fed": f"v4l2:{LOOP}?width=320&height=240&fps=10"}))
        recorder.wait_stored("fed", 20)
        seen = _seen(recorder, "fed", figures, tmp_path)
        assert (seen.width, seen.height) == (320, 240)
        before = len(recorder.gaps("fed"))

        _stop_feed(board)
        figures["state_without_pictures"] = recorder.wait_state("fed", lambda state: state != "streaming")["state"]
        # The device goes when nobody has it open any more.
        board.wait_for("the device is deleted", 60, lambda: board.try_run(f"v4l2loopback-ctl delete {LOOP}")[2] == 0)
        figures["state_without_device"] = recorder.wait_state("fed", lambda state: state == "absent", 120)["state"]

        board.run(f"v4l2loopback-ctl add -n fed -x 1 {LOOP} && udevadm settle")
        _feed(board)
        recorder.wait_state("fed", lambda state: state == "streaming", 120)
        recorder.wait_stored("fed", 20)
        told = recorder.gaps("fed")[before:]
        figures["gaps"] = [f"{g['cause']} {(g['end_ts'] - g['start_ts']) / 1e6:.1f} s" for g in told]
        assert told and all(g["cause"] != "unknown" for g in told)
        recorder.stop()
        figures["check"] = recorder.check(ARCHIVE).splitlines()[0]
    finally:
        recorder.end()
        _stop_feed(board)
        board.try_run("modprobe -r v4l2loopback")
