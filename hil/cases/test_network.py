"""The network goes away while a file is sent to a server on the host's side."""

import getpass
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mos_hil.board import Board
from mos_hil.recorder import HOME, Recorder, configuration
from mos_hil.sshd import Sshd
from mos_hil.vivid import Vivid

pytestmark = pytest.mark.lg_feature(["vivid", "ssh", "network-switch"])

RATE = 12_000
# Longer than a server waits for a silent client.
OUTAGE_SECONDS = 15


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    server = Sshd(tmp_path)
    yield server
    server.end()


def test_an_upload_survives_a_network_that_is_lost(recorder: Recorder, vivid: Vivid, sshd: Sshd, figures: dict, tmp_path: Path) -> None:
    board: Board = recorder.board
    recorder.start(configuration({"road": vivid.source()}, segment_seconds=8))
    segment = recorder.wait_closed("road")[0]
    local = recorder.fetch(segment, tmp_path)
    size = local.stat().st_size
    board.write(f"{HOME}/id", sshd.client_key.read_text())
    board.run(f"chmod 600 {HOME}/id")
    target = f"sftp://{getpass.getuser()}@{board.host_address}:{sshd.port}{sshd.folder}/"
    # Slow enough that the loss comes in the middle.
    recorder.do(f"upload --to {target} --host-key {sshd.fingerprint} --identity {HOME}/id --max-rate {min(RATE, size // 8)} --detach {segment['path']}")
    part = recorder.wait_for("the first bytes at the server", 60, lambda: next((f for f in sshd.folder.iterdir() if 0 < f.stat().st_size < size), None), 0.1)
    stored = recorder.lens("road")["stored"]
    board.network(False)
    try:
        arrived = part.stat().st_size
        figures.update(bytes=size, arrived_before_loss=arrived)
        assert arrived < size, "all had arrived: the case proves nothing"
        sshd.cut_connections()
        time.sleep(OUTAGE_SECONDS)
        assert part.exists() and part.stat().st_size < size
    finally:
        board.network(True)
    again = time.monotonic()
    job = recorder.wait_for("the job is done", 240, lambda: next((j for j in recorder.ask("uploads")["uploads"] if j["state"] == "done"), None))
    figures["seconds_to_done_again"] = round(time.monotonic() - again, 1)
    (whole,) = sshd.folder.iterdir()
    assert job["remote_path"].endswith(f"/{whole.name}")
    assert whole.read_bytes() == local.read_bytes()
    figures["recorded_meanwhile"] = meanwhile = recorder.lens("road")["stored"] - stored
    assert meanwhile > 0, "recording stood still with the network"

