"""A daemon that hangs is started anew by systemd, a board that hangs by its own watchdog; both cost a gap that says why."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mos_hil import film
from mos_hil.board import Board
from mos_hil.firmware import ARCHIVE as FIRMWARE_ARCHIVE
from mos_hil.firmware import Firmware
from mos_hil.recorder import ARCHIVE, Recorder, configuration
from mos_hil.vivid import Vivid

pytestmark = pytest.mark.lg_feature(["vivid", "ssh", "data-disk"])


@pytest.fixture
def firmware(machine: Board) -> Iterator[Firmware]:
    """Booted with systemd as the first process, and back to the rig's usual start afterwards."""
    if machine.on:
        machine.cut_power()
    machine.boot("rig=systemd", "systemd.firstboot=off")
    machine.run(f"rm -rf {FIRMWARE_ARCHIVE}")
    yield Firmware(machine)
    print(machine.try_run("journalctl -b --no-pager -u mos.service | tail -n 60")[0])
    machine.cut_power()


def assert_told_once(recorder: Recorder, cause: str, figures: dict, folder: Path) -> None:
    """One gap tells the end by its cause, and what is closed decodes."""
    gaps = [g for g in recorder.gaps("road") if g["cause"] == cause]
    figures["gaps"] = [f"{g['cause']} {(g['end_ts'] - g['start_ts']) / 1e6:.1f} s" for g in gaps]
    assert len(gaps) == 1
    for segment in [s for s in recorder.segments("road") if s["state"] != "open"]:
        film.look(recorder.fetch(segment, folder))


@pytest.mark.lg_feature(["systemd-boot", "power"])
def test_systemd_starts_a_hung_daemon_anew(firmware: Firmware, figures: dict, tmp_path: Path) -> None:
    board, recorder = firmware.board, firmware.recorder
    vivid = Vivid(board)
    vivid.load()
    firmware.install({
        "MOS_CAMERA__0__ID": "road",
        "MOS_CAMERA__0__SOURCE": vivid.source(),
        "MOS_STORAGE__SEGMENT_SECONDS": "4",
        "MOS_STORAGE__MIN_FREE_BYTES": "0",
        # The rig has no encoder in hardware.
        "MOS_BOARD__PRODUCTION": "false",
    })
    firmware.start()
    recorder.wait_stored("road", 30, 240)
    figures["user"] = board.run(f"ps -o user= -p {firmware.show('MainPID')} 2> /dev/null || stat -c %U /proc/{firmware.show('MainPID')}").strip()
    first = firmware.show("MainPID")
    board.run(f"kill -STOP {first}")
    began = time.monotonic()
    firmware.wait_restarted()
    figures.update(seconds_to_new_start=round(time.monotonic() - began, 1), restarts=firmware.show("NRestarts"))
    assert firmware.show("MainPID") != first
    told = board.run("journalctl -b --no-pager -u mos.service")
    assert "atchdog timeout" in told, told
    recorder.wait_recovered()
    recorder.wait_stored("road", 20, 240)
    assert_told_once(recorder, "recorder_killed", figures, tmp_path)
    firmware.stop()
    figures["check"] = recorder.check(FIRMWARE_ARCHIVE).splitlines()[0]


@pytest.mark.lg_feature("board-watchdog")
def test_the_boards_watchdog_resets_a_hung_board(machine: Board, figures: dict, tmp_path: Path) -> None:
    if machine.on:
        machine.cut_power()
    # A kernel that crashes and stays so.
    machine.boot("panic=0")
    recorder = Recorder(machine)
    recorder.clean()
    try:
        vivid = Vivid(machine)
        vivid.load()
        # What feeds it on a board with systemd is systemd (RuntimeWatchdogSec=).
        machine.run("busybox watchdog -T 30 -t 3 /dev/watchdog0")
        figures["watchdog"] = machine.run("cat /sys/class/watchdog/watchdog0/identity").strip()
        recorder.start(configuration({"road": vivid.source()}))
        recorder.wait_stored("road", 40)
        began = time.monotonic()
        machine.run("(sleep 1; echo c > /proc/sysrq-trigger) > /dev/null 2>&1 < /dev/null &")
        machine.wait_ready()
        figures["seconds_to_ready_again"] = round(time.monotonic() - began, 1)
        machine.reset_connection()
        vivid.load()
        recorder.start(configuration({"road": vivid.source()}))
        recorder.wait_recovered()
        recorder.wait_stored("road", 20)
        assert_told_once(recorder, "power_loss", figures, tmp_path)
        recorder.stop()
        figures["check"] = recorder.check(ARCHIVE).splitlines()[0]
    finally:
        machine.cut_power()
