"""Which frame a lens' source had delivered to the recorder, as the recorder tells until the power goes.

That is what a power cut's loss counts from: what camera and encoder still held is none of the recorder's. It is only told here, never
a verdict of the recorder's own: the judge compares it with the camera's numbers, and what was held back has a limit as well.
"""

import http.client
import json
import socket
import threading
import time

from .recorder import Recorder

PAUSE_SECONDS = 0.2


class Delivered:
    def __init__(self, recorder: Recorder, lens: str) -> None:
        self._lens = lens
        self._patience = recorder.board.patience
        self._connection = recorder.connect()
        self._heard = threading.Condition()
        self._asked = self._answered = 0.0
        self._newest: float | None = None
        self._over = False
        self._trouble = ""
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._over:
            try:
                self._ask()
            except (OSError, http.client.HTTPException, ValueError, KeyError) as fault:
                # The power is gone, or this connection only: the next request makes another one.
                self._trouble = repr(fault)
                self._connection.close()
            time.sleep(PAUSE_SECONDS)

    def _ask(self) -> None:
        asked = time.monotonic()
        self._connection.request("GET", "/v1/capture/status")
        status = json.loads(self._connection.getresponse().read())
        answered = time.monotonic()
        newest = next(lens for lens in status["lenses"] if lens["lens"] == self._lens).get("newest_ts")
        if newest is not None:
            with self._heard:
                self._asked, self._answered, self._newest = asked, answered, newest / 1e6
                self._heard.notify_all()

    def wait_fresh(self) -> None:
        """Returns when an answer has come that was asked for after now."""
        now = time.monotonic()
        with self._heard:
            heard = self._heard.wait_for(lambda: self._asked > now, 20 * self._patience)
        assert heard, f"the recorder does not tell what was delivered: {self._trouble}"

    def at(self, cut: float, interval: float) -> float:
        """Capture time of the newest frame that was delivered at `cut`, a monotonic time of the host: what was told last, and as many
        frames as have come due since its answer was here."""
        assert self._newest is not None, "the lens has delivered nothing"
        return self._newest + max(0, int((cut - self._answered) / interval)) * interval

    def stop(self) -> None:
        self._over = True
        waiting = self._connection.sock
        if waiting is not None:
            try:
                waiting.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._thread.join(10)
        self._connection.close()
