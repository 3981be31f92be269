"""Linux' virtual camera on a board: one webcam (320x180, 10 frames/s here) and one HDMI input, with their faults."""

import re
from pathlib import Path

from .board import Board
from .counter import Digits

WIDTH, HEIGHT, RATE = 320, 180, 10
INTERVAL = 1 / RATE


class Vivid:
    def __init__(self, board: Board) -> None:
        self._board = board
        self.webcam = self.hdmi = ""

    def load(self) -> None:
        """Loads the driver anew, so that nothing of an earlier case is left in its controls."""
        self._board.run("modprobe -r vivid; modprobe vivid n_devs=2 num_inputs=1,1 input_types=0,3 num_outputs=0,0 && udevadm settle")
        self.find()

    def find(self) -> None:
        nodes = self._board.run(
            "for d in /sys/class/video4linux/video*; do case $(cat $d/name) in vivid-*-vid-cap) echo /dev/${d##*/} $(cat $d/name);; esac; done"
        )
        found = {line.split()[1]: line.split()[0] for line in nodes.splitlines()}
        self.webcam, self.hdmi = found["vivid-000-vid-cap"], found["vivid-001-vid-cap"]

    def source(self) -> str:
        return f"v4l2:{self.webcam}?width={WIDTH}&height={HEIGHT}&fps={RATE}"

    def hdmi_source(self) -> str:
        return f"v4l2:{self.hdmi}?width={WIDTH}&height={HEIGHT}&fps={RATE}"

    def control(self, node: str, name: str, value: int) -> None:
        self._board.run(f"v4l2-ctl -d {node} -c {name}={value}")

    def unbind(self) -> None:
        self._board.run("echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind")

    def bind(self) -> None:
        self._board.run("echo vivid.0 > /sys/bus/platform/drivers/vivid/bind && udevadm settle")

    def learn_digits(self, folder: Path) -> Digits:
        said = self._board.run(
            f"v4l2-ctl -d {self.webcam} --set-fmt-video=width={WIDTH},height={HEIGHT},pixelformat=GREY --set-parm={RATE}"
            " --verbose --stream-mmap --stream-count=30 --stream-to=/tmp/digits.raw 2>&1"
        )
        numbers = [int(number) for number in re.findall(r"cap dqbuf:.*?seq: *(\d+)", said)]
        self._board.get("/tmp/digits.raw", folder / "digits.raw")
        return Digits.learn((folder / "digits.raw").read_bytes(), WIDTH, HEIGHT, numbers)
