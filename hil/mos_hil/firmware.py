"""MOS as firmware starts it: the units, user and rules of meta-mos, on a board whose first process is systemd."""

from pathlib import Path

from .board import Board
from .recorder import Recorder

FILES = Path(__file__).resolve().parents[2] / "meta-mos/recipes-multimedia/mos/files"
# What meta-mos' recipe makes by useradd; the groups are those of mos.service.
USERS = 'g mos-operators -\nu mos - "MOS" /var/lib/mos\n' + "".join(f"g {group} -\nm mos {group}\n" for group in ("video", "render", "i2c", "gpio"))
ARCHIVE = "/data/mos"
SOCKET = "/run/mos/mos.sock"
SETTINGS = "/data/config/mos.env"
KEPT = "/data/config/mos.env.before-mos-hil"


class Firmware:
    def __init__(self, board: Board) -> None:
        self.board = board
        self.socket = SOCKET
        self.recorder = Recorder(board, SOCKET)

    def install(self, settings: dict[str, str]) -> None:
        """`settings` go where a vehicle's own do. What a board's image has of meta-mos is the image's; a rig gets all of it."""
        if self.board.virtual:
            self._install_units()
        else:
            self.board.run(f"systemctl stop mos.service; [ ! -e {SETTINGS} ] || mv {SETTINGS} {KEPT}")
        self.board.write(SETTINGS, "".join(f"{key}={value}\n" for key, value in settings.items()))

    def _install_units(self) -> None:
        for name, to in {
            "mos.service": "/etc/systemd/system/mos.service",
            "mos.socket": "/etc/systemd/system/mos.socket",
            "mos.tmpfiles": "/etc/tmpfiles.d/mos.conf",
            "mos.rules": "/etc/udev/rules.d/60-mos.rules",
            "mos.toml": "/etc/mos/mos.toml",
        }.items():
            self.board.write(to, (FILES / name).read_text())
        self.board.write("/etc/sysusers.d/mos.conf", USERS)
        # Nodes that the drivers made before the groups were there keep none.
        self.board.run("systemd-sysusers && systemd-tmpfiles --create mos.conf && udevadm control --reload && systemctl daemon-reload", 300)
        self.board.run("chown -R mos:mos /data/mos && udevadm trigger --subsystem-match=video4linux && udevadm settle")

    def start(self) -> None:
        """Returns when the unit has told that it is ready."""
        self.board.run("systemctl start mos.service", 400)

    def show(self, name: str) -> str:
        return self.board.run(f"systemctl show -p {name} --value mos.service").strip()

    def stop(self) -> None:
        self.board.run("systemctl stop mos.socket mos.service", 200)

    def end(self) -> None:
        """Leaves a real board with the settings that it had."""
        self.board.try_run(f"systemctl stop mos.socket mos.service; rm -f {SETTINGS}; [ ! -e {KEPT} ] || mv {KEPT} {SETTINGS}", 200)

    def wait_restarted(self, seconds: float = 240) -> None:
        self.board.wait_for("systemd has started it anew", seconds, lambda: self.show("NRestarts") != "0" and self.show("SubState") == "running")
