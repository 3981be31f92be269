"""The network goes away while a file is sent to a server on the host's side."""

import getpass
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mos_hil.board import Board
from mos_hil.recorder import HOME, Recorder, configuration, wait_for
from mos_hil.sshd import Sshd
from mos_hil.vivid import Vivid

pytestmark = pytest.mark.lg_feature(["vivid", "ssh", "network-switch"])

RATE = 12_000


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    server = Sshd(tmp_path)
    yield server
    server.end()


def test_an_upload_survives_a_network_that_is_lost(recorder: Recorder, vivid: Vivid, sshd: Sshd, figures: dict, tmp_path: Path) -> None:
    board: Board = recorder.board
    recorder.start(configuration({"road": vivid.source()}, segment_seconds=10))
    segment = wait_for("a closed segment", 120, lambda: next((s for s in recorder.segments("road") if s["state"] == "closed"), None))
    local = recorder.fetch(segment, tmp_path)
    size = local.stat().st_size
    board.write(f"{HOME}/id", sshd.client_key.read_text())
    board.run(f"chmod 600 {HOME}/id")
    target = f"sftp://{getpass.getuser()}@{board.host_address}:{sshd.port}{sshd.folder}/"
    # Slow enough that the loss comes in the middle.
    recorder.do(f"upload --to {target} --host-key {sshd.fingerprint} --identity {HOME}/id --max-rate {min(RATE, size // 8)} --detach {segment['path']}")
    part = wait_for("the first bytes at the server", 60, lambda: next((f for f in sshd.folder.iterdir() if 0 < f.stat().st_size < size), None), 0.1)
    board.network(False)
    try:
        arrived = part.stat().st_size
        figures.update(bytes=size, arrived_before_loss=arrived)
        assert arrived < size, "all had arrived: the case proves nothing"
        # Longer than the program waits for an answer, so that it must connect anew.
        sshd.cut_connections()
        wait_for("some seconds without network", 60, _seconds(15))
        assert part.exists() and part.stat().st_size < size
    finally:
        board.network(True)
    name = Path(segment["path"]).name
    whole = wait_for("the whole file at the server", 240, lambda: next((f for f in sshd.folder.iterdir() if f.name == name), None))
    assert hashlib.sha256(whole.read_bytes()).digest() == hashlib.sha256(local.read_bytes()).digest()
    wait_for("nothing but the file is left at the server", 30, lambda: [f.name for f in sshd.folder.iterdir()] == [name])
    (job,) = wait_for("the job is done", 60, lambda: (j := recorder.ask("uploads")["jobs"]) and j[0]["state"] == "done" and j)
    figures.update(attempts=job.get("attempts"), resumed=job.get("resumed"))
    assert recorder.lens("road")["reconnects"] == 0, "the camera was disturbed by the network"


def _seconds(seconds: float):
    import time

    until = time.monotonic() + seconds
    return lambda: time.monotonic() >= until
