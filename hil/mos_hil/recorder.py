"""MOS on a board: started with a configuration of its own, asked through its API and its commands, never through its files while it runs."""

from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

from .board import Board, CommandFailed

HOME = "/data/mos-hil"
ARCHIVE = f"{HOME}/archive"
SOCKET = "/run/mos-hil.sock"
# What MOS says of a picture that takes longer than it waits.
TOO_SLOW = "did not answer within"


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
        self.asked_again = 0
        """Requests that an emulated board was too slow for, and said so."""

    def clean(self) -> None:
        self.board.run(f"rm -rf {HOME}")

    def start(self, config: str) -> None:
        self.board.write(f"{HOME}/mos.toml", config)
        self.board.run(f"mkdir -p {HOME}; setsid mos run --config {HOME}/mos.toml >> {HOME}/log 2>&1 < /dev/null & echo $! > {HOME}/pid")

        def answers() -> bool:
            assert self.board.try_run(f"kill -0 $(cat {HOME}/pid)")[2] == 0, f"mos has ended: {self.log()}"
            try:
                return bool(self.ask("health"))
            except OSError:
                return False

        self.board.wait_for("mos answers", 60, answers)

    def stop(self) -> None:
        self.signal("TERM")
        self.board.wait_for("mos has stopped", 60, lambda: self.board.try_run(f"kill -0 $(cat {HOME}/pid)")[2] != 0)

    def wait_for(self, what: str, seconds: float, probe: Callable[[], object], pause: float = 0.5):
        return self.board.wait_for(what, seconds, probe, pause)

    def signal(self, name: str) -> None:
        self.board.run(f"kill -{name} $(cat {HOME}/pid)")

    def ask(self, path: str) -> dict:
        """What the API answers, asked from the host: a command of `mos` costs an emulated board a second of its processor, and
        those that wait ask all the time."""
        return self.board.http(self._socket, f"/v1/{path}")

    def connect(self) -> HTTPConnection:
        """A connection to the API of one's own."""
        return self.board.connect(self._socket)

    def do(self, command: str) -> str:
        """A command's words; fails if it does. What an emulated board was too slow for, and says so, is asked again."""
        asked = f"mos --socket {self._socket} {command}"
        if not self.board.virtual:
            return self.board.run(asked)

        def done() -> tuple[str] | None:
            out, err, code = self.board.try_run(asked)
            if code != 0 and TOO_SLOW in err:
                self.asked_again += 1
                return None
            if code != 0:
                raise CommandFailed(f"`{asked}` ended with {code}: {err or out}")
            return (out,)

        return self.board.wait_for(f"an answer in time to `{command}`", 30, done)[0]

    def lens(self, lens: str) -> dict:
        return next(l for l in self.ask("health")["lenses"] if l["lens"] == lens)

    def listed(self, lens: str) -> dict:
        """`segments` and `gaps`, all of them."""
        whole: dict = {"segments": [], "gaps": []}
        cursor = ""
        while True:
            page = self.ask(f"segments?lens={lens}&limit=5000{cursor}")
            for key, found in whole.items():
                found += page[key]
            if not page.get("next_cursor"):
                return whole
            cursor = f"&cursor={quote(page['next_cursor'])}"

    def segments(self, lens: str) -> list[dict]:
        return self.listed(lens)["segments"]

    def closed(self, lens: str) -> list[dict]:
        return [s for s in self.segments(lens) if s["state"] == "closed"]

    def wait_closed(self, lens: str, count: int = 1, seconds: float = 120, long: float = 0.0) -> list[dict]:
        """Waits for `count` closed segments of at least `long` seconds."""

        def found() -> list[dict] | None:
            enough = [s for s in self.closed(lens) if s["end_ts"] - s["start_ts"] >= long * 1e6]
            return enough if len(enough) >= count else None

        return self.wait_for(f"{count} closed segments of {lens}", seconds, found)

    def gaps(self, lens: str) -> list[dict]:
        return self.listed(lens)["gaps"]

    def wait_recovered(self) -> dict:
        def done():
            status = self.ask("health")
            storage = status["storage"]
            return status if storage["listed"] and storage["recovered"] else None

        return self.board.wait_for("recovery", 120, done)

    def wait_stored(self, lens: str, frames: int, seconds: float = 90) -> dict:
        """Waits for `frames` more durable frames than now."""
        before = self.lens(lens).get("stored", 0)
        return self.board.wait_for(f"{frames} frames of {lens}", seconds, lambda: (l := self.lens(lens)).get("stored", 0) >= before + frames and l)

    def wait_state(self, lens: str, wanted: Callable[[str], bool], seconds: float = 60) -> dict:
        return self.board.wait_for(f"another state of {lens}", seconds, lambda: wanted((l := self.lens(lens))["state"]) and l)

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
        self.board.wait_for("the end of mos", 60, lambda: self.board.try_run(f"kill -0 $(cat {HOME}/pid)")[2] != 0)
