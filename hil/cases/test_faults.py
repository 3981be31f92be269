"""Cameras that go and come back, a clock that jumps, a disk that is full: what is recorded goes on, what is not is told."""

from pathlib import Path

import pytest
from mos_hil.counter import Digits
from mos_hil.footage import frames, gaps, holes
from mos_hil.judge import DRIFT_SECONDS, drift, out_of_order, power_cut, since_opened
from mos_hil.recorder import ARCHIVE, HOME, Recorder, configuration
from mos_hil.vivid import INTERVAL, Vivid

pytestmark = pytest.mark.lg_feature(["vivid", "ssh"])


def test_a_driver_is_unbound_and_bound_again(recorder: Recorder, vivid: Vivid, figures: dict) -> None:
    recorder.start(configuration({"road": vivid.source()}))
    recorder.wait_stored("road", 20)
    before = len(recorder.gaps("road"))
    vivid.unbind()
    figures["state_without"] = recorder.wait_state("road", lambda state: state != "streaming")["state"]
    vivid.bind()
    recorder.wait_state("road", lambda state: state == "streaming", 120)
    recorder.wait_stored("road", 20)
    told = recorder.gaps("road")[before:]
    figures["gaps"] = [f"{g['cause']} {(g['end_ts'] - g['start_ts']) / 1e6:.1f} s" for g in told]
    assert told and all(g["cause"] != "unknown" for g in told)
    assert holes(recorder.listed("road")) == []
    recorder.stop()
    recorder.check(ARCHIVE)


def test_a_device_that_disconnects_is_told_and_comes_back(recorder: Recorder, vivid: Vivid, figures: dict) -> None:
    recorder.start(configuration({"road": vivid.source()}))
    recorder.wait_stored("road", 20)
    before = len(recorder.gaps("road"))
    vivid.control(vivid.webcam, "disconnect", 1)
    figures["state_without"] = recorder.wait_state("road", lambda state: state != "streaming")["state"]
    vivid.unbind()
    vivid.bind()
    recorder.wait_state("road", lambda state: state == "streaming", 120)
    recorder.wait_stored("road", 20)
    told = recorder.gaps("road")[before:]
    figures["gaps"] = [f"{g['cause']} {(g['end_ts'] - g['start_ts']) / 1e6:.1f} s" for g in told]
    assert told and all(g["cause"] != "unknown" for g in told)
    assert holes(recorder.listed("road")) == []


def test_a_link_that_loses_its_signal_is_told_and_comes_back(recorder: Recorder, vivid: Vivid, figures: dict) -> None:
    """The input goes on to deliver pictures, of noise: only its driver knows."""
    recorder.start(configuration({"link": vivid.hdmi_source()}))
    recorder.wait_stored("link", 20)
    before = len(recorder.gaps("link"))
    vivid.control(vivid.hdmi, "dv_timings_signal_mode", 1)
    # Between two looks it may have been tried again, and is then for a moment.
    lens = recorder.wait_state("link", lambda state: state == "absent")
    figures["said"] = lens["last_error"]
    assert "no signal" in lens["last_error"]
    vivid.control(vivid.hdmi, "dv_timings_signal_mode", 0)
    recorder.wait_state("link", lambda state: state == "streaming", 120)
    recorder.wait_stored("link", 20)
    told = recorder.gaps("link")[before:]
    figures["gaps"] = [f"{g['cause']} {(g['end_ts'] - g['start_ts']) / 1e6:.1f} s" for g in told]
    assert "camera_absent" in {g["cause"] for g in told}
    assert holes(recorder.listed("link")) == []


def test_buffers_that_a_camera_drops_cost_only_themselves(
    recorder: Recorder, vivid: Vivid, digits: Digits, figures: dict, tmp_path: Path
) -> None:
    recorder.start(configuration({"road": vivid.source()}))
    recorder.wait_stored("road", 20)
    # A starved board may have opened it more than once until it delivered.
    opened = recorder.lens("road")["reconnects"]
    vivid.control(vivid.webcam, "percentage_of_dropped_buffers", 40)
    recorder.wait_stored("road", 30)
    vivid.control(vivid.webcam, "percentage_of_dropped_buffers", 0)
    recorder.wait_stored("road", 60)
    assert recorder.lens("road")["reconnects"] == opened
    closed = recorder.closed("road")
    found = since_opened(frames(recorder, closed, digits, tmp_path), INTERVAL)
    apart = round(drift(found, INTERVAL), 3)
    figures.update(frames=len(found), numbers=found[-1].number - found[0].number + 1, drift_seconds=apart)
    assert out_of_order(found) == []
    assert len(found) < found[-1].number - found[0].number + 1, "nothing was dropped: the case proves nothing"
    # A frame keeps the time at which it was captured, however many are missing before it.
    assert apart < DRIFT_SECONDS, "frames are off the times that their numbers tell"


@pytest.mark.lg_feature("clock")
@pytest.mark.parametrize("step", [3600, -7200])
def test_a_clock_that_steps_costs_nothing(
    recorder: Recorder, vivid: Vivid, digits: Digits, figures: dict, tmp_path: Path, step: int
) -> None:
    recorder.start(configuration({"road": vivid.source()}))
    recorder.wait_stored("road", 30)
    recorder.board.run(f"date -s @$(($(date +%s) + {step}))")
    try:
        recorder.wait_stored("road", 60)
        found = frames(recorder, recorder.closed("road"), digits, tmp_path)
        verdict = power_cut(found, gaps(recorder.listed("road")), found[-1].at, INTERVAL, 0)
        figures.update(frames=len(found), missing=verdict.missing, removed=recorder.ask("health")["storage"]["removed_segments"])
        assert verdict.faults == []
        assert figures["removed"] == 0
        assert holes(recorder.listed("road")) == []
        figures["drift_seconds"] = apart = round(drift(found, INTERVAL), 3)
        assert apart < DRIFT_SECONDS, "footage of one run lies apart"
    finally:
        recorder.board.run(f"date -s @$(($(date +%s) - {step}))")


def test_a_full_disk_stops_nothing_for_good(recorder: Recorder, vivid: Vivid, figures: dict, tmp_path: Path, digits: Digits) -> None:
    small = f"{HOME}/small"
    board = recorder.board
    board.run(f"mkdir -p {small} && truncate -s 48M {small}.img && mke2fs -q -t ext4 {small}.img && modprobe loop && mount -o loop {small}.img {small}")
    try:
        recorder.start(configuration({"road": vivid.source()}, archive=f"{small}/archive"))
        recorder.wait_stored("road", 60)
        # All but the last of it is only taken, not written: filling it costs an emulated card minutes in which it does nothing else.
        board.run(f"fallocate -l $(($(stat -f -c '%f * %S' {small}) - 1048576)) {small}/stranger")
        board.try_run(f"dd if=/dev/zero of={small}/stranger bs=64k oflag=append conv=notrunc")
        short = recorder.wait_for("a word about the full disk", 60, lambda: (s := recorder.ask("health"))["storage"]["short"] and s)
        figures["said"] = [*short["problems"], *short["alarms"]]
        recorder.wait_for("footage or a gap meanwhile", 60, lambda: recorder.gaps("road") or recorder.ask("health")["storage"]["removed_segments"])
        board.run(f"rm {small}/stranger")
        recorder.wait_stored("road", 60, 180)
        closed = recorder.closed("road")
        figures.update(frames=len(frames(recorder, closed, digits, tmp_path)), gaps=[g["cause"] for g in recorder.gaps("road")])
        assert holes(recorder.listed("road")) == []
        recorder.stop()
        figures["check"] = recorder.check(f"{small}/archive").splitlines()[0]
    finally:
        recorder.end()
        board.run(f"umount {small}")
