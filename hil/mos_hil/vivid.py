"""Linux' virtual camera on a board: one webcam (320x180, 10 frames/s here) and one HDMI input, with their faults."""

import re
from pathlib import Path

from .board import Board
from .counter import Digits

WIDTH, HEIGHT, RATE = 320, 180, 10
INTERVAL = 1 / RATE


# Links by name, as udev makes them for real cameras: a device that is bound again while somebody still has it open gets another
# number. (Both of vivid's devices have the same path, so those of udev itself do not tell them apart.)
RULE = 'SUBSYSTEM=="video4linux", ATTR{name}=="vivid-*-vid-cap", SYMLINK+="v4l/by-name/$attr{name}"'
LINKS = "/dev/v4l/by-name"
# An HDMI input delivers what its source sends, whatever rate is asked for: 60 pictures a second leave an emulated arm64 processor no
# time for anything else. This is the slowest that vivid takes.
TIMINGS = "cvt=1,width=1920,height=1080,fps=20"


# Each picture's time is when it was due. Vivid's default, the end of the picture, lies 0.9 intervals behind that and so in the future when
# the picture is handed out: v4l2src then takes such a driver for broken and every picture for one interval old.
TIMES = "timestamp_source=1"


class Vivid:
    def __init__(self, board: Board) -> None:
        self._board = board
        self.webcam, self.hdmi = f"{LINKS}/vivid-000-vid-cap", f"{LINKS}/vivid-001-vid-cap"

    def load(self) -> None:
        """Loads the driver anew, so that nothing of an earlier case is left in its controls."""
        self._board.write("/run/udev/rules.d/70-vivid.rules", RULE + "\n")
        self._board.run(
            "modprobe -r vivid; udevadm control --reload; modprobe vivid n_devs=2 num_inputs=1,1 input_types=0,3 num_outputs=0,0"
            f" && udevadm settle && [ -e {self.webcam} ] && v4l2-ctl -d {self.hdmi} --set-dv-bt-timings {TIMINGS} -c {TIMES}"
            f" && v4l2-ctl -d {self.webcam} -c {TIMES}"
        )

    def source(self) -> str:
        return f"v4l2:{self.webcam}?width={WIDTH}&height={HEIGHT}&fps={RATE}"

    def hdmi_source(self) -> str:
        return f"v4l2:{self.hdmi}?width={WIDTH}&height={HEIGHT}&fps={RATE}"

    def control(self, node: str, name: str, value: int) -> None:
        self._board.run(f"v4l2-ctl -d {node} -c {name}={value}")

    def unbind(self) -> None:
        self._board.run("echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind")

    def bind(self) -> None:
        self._board.run(f"echo vivid.0 > /sys/bus/platform/drivers/vivid/bind && udevadm settle && v4l2-ctl -d {self.webcam} -c {TIMES}")

    def learn_digits(self, folder: Path) -> Digits:
        said = self._board.run(
            f"v4l2-ctl -d {self.webcam} --set-fmt-video=width={WIDTH},height={HEIGHT},pixelformat=GREY --set-parm={RATE}"
            " --verbose --stream-mmap --stream-count=30 --stream-to=/tmp/digits.raw 2>&1"
        )
        numbers = [int(number) for number in re.findall(r"cap dqbuf:.*?seq: *(\d+)", said)]
        self._board.get("/tmp/digits.raw", folder / "digits.raw")
        return Digits.learn((folder / "digits.raw").read_bytes(), WIDTH, HEIGHT, numbers)
