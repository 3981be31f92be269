"""MOS on a board: started with a configuration of its own, asked through its commands, never through its files while it runs."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from .board import PATIENCE, Board, CommandFailed

HOME = "/data/mos-hil"
ARCHIVE = f"{HOME}/archive"
SOCKET = "/run/mos-hil.sock"
# What MOS says of a picture that takes longer than it waits.
TOO_SLOW = "did not answer within"


def wait_for(what: str, seconds: float, probe: Callable[[], object], pause: float = 0.5):
    """The first answer of `probe` that is true; fails after `seconds`, as a board alone would take them."""
    seconds *= PATIENCE
    until = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < until, f"{what}: not within {seconds} s"
        time.sleep(pause)


def configuration(cameras: dict[str, str], segment_seconds: int = 4, storage: str = "", archive: str = ARCHIVE) -> str:
    lines = [
        "[storage]",
        f'root = "{archive}"',
        f"segment_seconds = {segment_seconds}",
        storage or "min_free_bytes = 0",
        "[http]",
        f'unix_socket = "{SOCKET}"',
    ]
    for lens, source in cameras.items():
        lines += ["[[camera]]", f'id = "{lens}"', f'source = "{source}"']
    return "\n".join(lines) + "\n"


class Recorder:
    def __init__(self, board: Board, socket: str = SOCKET) -> None:
        self.board = board
        self._socket = socket

    def clean(self) -> None:
        self.board.run(f"rm -rf {HOME}")

    def start(self, config: str) -> None:
        self.board.write(f"{HOME}/mos.toml", config)
        self.board.run(f"mkdir -p {HOME}; setsid mos run --config {HOME}/mos.toml >> {HOME}/log 2>&1 < /dev/null & echo $! > {HOME}/pid")

        def answers() -> bool:
            assert self.board.try_run(f"kill -0 $(cat {HOME}/pid)")[2] == 0, f"mos has ended: {self.log()}"
            return self.board.try_run(f"mos --socket {self._socket} status --json")[2] == 0

        wait_for("mos answers", 60, answers)

    def stop(self) -> None:
        self.signal("TERM")
        wait_for("mos has stopped", 60, lambda: self.board.try_run(f"kill -0 $(cat {HOME}/pid)")[2] != 0)

    def signal(self, name: str) -> None:
        self.board.run(f"kill -{name} $(cat {HOME}/pid)")

    def ask(self, command: str):
        return json.loads(self.board.run(f"mos --socket {self._socket} {command} --json"))

    def do(self, command: str) -> str:
        """A command's words; fails if it does. What an emulated board was too slow for, and says so, is asked again."""
        asked = f"mos --socket {self._socket} {command}"
        if not self.board.virtual:
            return self.board.run(asked)

        def done() -> tuple[str] | None:
            out, err, code = self.board.try_run(asked)
            if code != 0 and TOO_SLOW in err:
                return None
            if code != 0:
                raise CommandFailed(f"`{asked}` ended with {code}: {err or out}")
            return (out,)

        return wait_for(f"an answer in time to `{command}`", 30, done)[0]

    def lens(self, lens: str) -> dict:
        return next(l for l in self.ask("status")["lenses"] if l["lens"] == lens)

    def segments(self, lens: str) -> list[dict]:
        return self.ask(f"segments --lens {lens}")["segments"]

    def gaps(self, lens: str) -> list[dict]:
        return self.ask(f"segments --lens {lens}")["gaps"]

    def wait_recovered(self) -> dict:
        def done():
            status = self.ask("status")
            storage = status["storage"]
            return status if storage["listed"] and storage["recovered"] else None

        return wait_for("recovery", 120, done)

    def wait_stored(self, lens: str, frames: int, seconds: float = 90) -> dict:
        """Waits for `frames` more durable frames than now."""
        before = self.lens(lens).get("stored", 0)
        return wait_for(f"{frames} frames of {lens}", seconds, lambda: (l := self.lens(lens)).get("stored", 0) >= before + frames and l)

    def wait_state(self, lens: str, wanted: Callable[[str], bool], seconds: float = 60) -> dict:
        return wait_for(f"another state of {lens}", seconds, lambda: wanted((l := self.lens(lens))["state"]) and l)

    def fetch(self, segment: dict, folder: Path) -> Path:
        file = folder / f"{segment['id']}.mp4"
        self.board.get(segment["path"], file)
        return file

    def check(self, archive: str = ARCHIVE) -> str:
        """`mos check` of the archive of a daemon that has stopped; fails if it finds anything."""
        out, err, code = self.board.try_run(f"mos check {archive}")
        if code != 0:
            raise CommandFailed(f"mos check: {out}\n{err}")
        return out

    def log(self) -> str:
        return self.board.try_run(f"tail -n 100 {HOME}/log")[0]

    def end(self) -> None:
        """Whatever state the daemon is in."""
        self.board.try_run(f"kill -CONT $(cat {HOME}/pid); kill -TERM $(cat {HOME}/pid)")
        wait_for("the end of mos", 60, lambda: self.board.try_run(f"kill -0 $(cat {HOME}/pid)")[2] != 0)
