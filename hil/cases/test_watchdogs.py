"""A board that hangs is started anew by its own watchdog; that costs a gap that says why."""

import time
from pathlib import Path

import pytest
from mos_hil.board import Board
from mos_hil.footage import assert_told_once
from mos_hil.recorder import ARCHIVE, Recorder, configuration
from mos_hil.vivid import Vivid

pytestmark = pytest.mark.lg_feature(["vivid", "ssh", "data-disk"])


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
