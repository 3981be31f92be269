"""A board that hangs is started anew by its own watchdog; that costs a gap that says why."""

import time
from pathlib import Path

import pytest
from mos_hil.board import Board
from mos_hil.footage import assert_told_once
from mos_hil.recorder import ARCHIVE, Recorder, configuration
from mos_hil.vivid import Vivid

pytestmark = pytest.mark.lg_feature(["vivid", "ssh", "data-disk"])

# After which the watchdog resets a board that does not feed it; fed every 3 s.
SECONDS = 20


@pytest.mark.lg_feature("board-watchdog")
def test_the_boards_watchdog_resets_a_hung_board(
    board: Board, recorder: Recorder, vivid: Vivid, figures: dict, tmp_path: Path
) -> None:
    # A kernel that crashes and stays so.
    board.run("echo 0 > /proc/sys/kernel/panic")
    # What feeds it on a board with systemd is systemd (RuntimeWatchdogSec=).
    board.run(f"busybox watchdog -T {SECONDS} -t 3 /dev/watchdog0")
    figures["watchdog"] = board.run("cat /sys/class/watchdog/watchdog0/identity").strip()
    recorder.start(configuration({"road": vivid.source()}))
    recorder.wait_stored("road", 40)
    began = time.monotonic()
    board.run("(sleep 1; echo c > /proc/sysrq-trigger) > /dev/null 2>&1 < /dev/null &")
    try:
        board.wait_ready()
    except BaseException:
        # It hangs: what comes next needs one that runs.
        board.cut_power()
        raise
    figures["seconds_to_ready_again"] = round(time.monotonic() - began, 1)
    board.reset_connection()
    vivid.load()
    recorder.start(configuration({"road": vivid.source()}))
    recorder.wait_recovered()
    recorder.wait_stored("road", 20)
    assert_told_once(recorder, "power_loss", figures, tmp_path)
    recorder.stop()
    figures["check"] = recorder.check(ARCHIVE).splitlines()[0]
