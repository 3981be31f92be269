"""The board's clock as the host sees it until the power goes: what time it was on the board at the cut."""

import threading
import time

from .board import Board

# Where it can be done without a process for each beat, which an emulated board would feel.
BEATS = (
    "if command -v bash > /dev/null; then exec bash -c 'exec 3<> <(:); while :; do echo $EPOCHREALTIME; read -t 0.1 -u 3; done'; fi; "
    "while :; do date +%s.%N; sleep 0.1; done"
)


class Beat:
    def __init__(self, board: Board) -> None:
        self._process = board.stream(BEATS)
        self._offsets: list[float] = []
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self._first.wait(30 * board.patience), "the board's clock does not beat"

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # The least delayed line tells best how far the clocks are apart.
            self._offsets.append(time.monotonic() - float(line))
            self._first.set()

    def board_time(self, host: float) -> float:
        """A monotonic time of the host on the board's wall clock, which must not have been stepped meanwhile."""
        return host - min(self._offsets)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join(10)
