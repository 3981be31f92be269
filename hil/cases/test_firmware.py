"""MOS as firmware starts it: by meta-mos' units, as its own user, with roles by groups, under systemd's watchdog."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mos_hil.board import Board
from mos_hil.firmware import ARCHIVE, Firmware
from mos_hil.footage import assert_told_once
from mos_hil.vivid import Vivid

pytestmark = pytest.mark.lg_feature(["vivid", "ssh", "data-disk", "systemd-boot", "power"])


@pytest.fixture(scope="module")
def firmware(machine: Board) -> Iterator[Firmware]:
    """Booted with systemd as the first process, one lens recording; back to the rig's usual start afterwards."""
    if machine.on:
        machine.cut_power()
    machine.boot("rig=systemd", "systemd.firstboot=off")
    firmware = Firmware(machine)
    if machine.virtual:
        machine.run(f"rm -rf {ARCHIVE}")
    elif machine.run(f"find {ARCHIVE} -name '*.mp4' | head -n 1"):
        pytest.skip(f"{ARCHIVE} of this board has footage of its own: move it away first")
    vivid = Vivid(machine)
    vivid.load()
    try:
        firmware.install({
            "MOS_CAMERA__0__ID": "road",
            "MOS_CAMERA__0__SOURCE": vivid.source(),
            "MOS_STORAGE__SEGMENT_SECONDS": "4",
            "MOS_STORAGE__MIN_FREE_BYTES": "0",
            # The rig has no encoder in hardware.
            "MOS_BOARD__PRODUCTION": "false",
        })
        firmware.start()
        yield firmware
    finally:
        print(machine.try_run("journalctl -b --no-pager -u mos.service | tail -n 60")[0])
        firmware.end()
        machine.cut_power()


def test_groups_of_the_system_are_roles(firmware: Firmware, figures: dict) -> None:
    board, recorder = firmware.board, firmware.recorder
    recorder.wait_stored("road", 5, 240)
    segment = recorder.wait_closed("road", seconds=240)[0]["id"]

    def tries(command: str, *groups: str) -> tuple[str, int]:
        ids = [board.run(f"getent group {group} | cut -d : -f 3").strip() for group in groups]
        joined = f"--groups={','.join(ids)}" if ids else "--clear-groups"
        _, said, code = board.try_run(f"setpriv --reuid=65534 --regid=65534 {joined} mos --socket {firmware.socket} {command}")
        return said, code

    stranger, code = tries("status")
    assert code != 0, "who is in no group of the recorder's reaches its socket"
    assert tries("status", "mos")[1] == 0
    viewer, code = tries(f"protect {segment}", "mos")
    assert code != 0 and "needs the role operator" in viewer
    assert tries(f"protect {segment}", "mos", "mos-operators") == ("", 0)
    operator, code = tries(f"unprotect {segment}", "mos", "mos-operators")
    assert code != 0 and "needs the role admin" in operator
    recorder.do(f"unprotect {segment}")
    figures.update(stranger=stranger, viewer=viewer, operator=operator)


def test_systemd_starts_a_hung_daemon_anew(firmware: Firmware, figures: dict, tmp_path: Path) -> None:
    board, recorder = firmware.board, firmware.recorder
    recorder.wait_stored("road", 30, 240)
    first = firmware.show("MainPID")
    figures["user"] = board.run(f"stat -c %U /proc/{first}").strip()
    assert figures["user"] == "mos"
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
    figures["check"] = recorder.check(ARCHIVE).splitlines()[0]
