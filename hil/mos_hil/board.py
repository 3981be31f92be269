"""One board, real or virtual: power, commands, files. The cases know nothing else of what they run on.

Built on labgrid's drivers: SSHDriver (or ShellDriver on a serial line) for commands, QEMUDriver or a power switch for power.
Never tells a case which of them it is; what a board cannot do is a missing feature of its environment.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from labgrid import Target
from labgrid.driver import QEMUDriver, SSHDriver
from labgrid.driver.exception import ExecutionError


# An emulated board on a busy host is slower than one alone by this much. Only what fails waits that long; a real board never.
PATIENCE = 5


class CommandFailed(AssertionError):
    """A command on the board ended with another status than 0."""


class Board:
    def __init__(self, target: Target, settings: dict, base: Path) -> None:
        self.target = target
        self.settings = settings
        self._base = base
        self._qemu = target.get_driver(QEMUDriver, activate=False) if _has(target, QEMUDriver) else None
        self._shell = target.get_driver("CommandProtocol", activate=False)
        self._files = target.get_driver("FileTransferProtocol", activate=False)
        self._forwarded: dict = {}
        self.on = False

    @property
    def virtual(self) -> bool:
        return self._qemu is not None

    @property
    def patience(self) -> int:
        """By how much longer than told anything may take here, for reasons that are the host's."""
        return PATIENCE if self.virtual else 1

    def wait_for(self, what: str, seconds: float, probe: Callable[[], object], pause: float = 0.5):
        """The first answer of `probe` that is true; fails after `seconds`, as a board alone would take them."""
        seconds *= self.patience
        until = time.monotonic() + seconds
        while True:
            found = probe()
            if found:
                return found
            assert time.monotonic() < until, f"{what}: not within {seconds} s"
            time.sleep(pause)

    def blank_data_disk(self) -> None:
        """A virtual board's data disk, made new. A real board keeps its own: cases clean up their folder instead."""
        disk = self.settings.get("data_disk")
        offset = self.settings.get("data_disk_offset")
        if disk and offset:
            # A partition: without its superblock the guest makes it anew.
            with (self._base / disk).open("r+b") as file:
                file.seek(offset)
                file.write(bytes(1 << 20))
        elif disk:
            path = self._base / disk
            path.unlink(missing_ok=True)
            with path.open("wb") as file:
                # All of it now: a host that runs out of room would stop the machine in the middle of a case.
                os.posix_fallocate(file.fileno(), 0, int(self.settings["data_disk_bytes"]))

    @property
    def host_address(self) -> str:
        """The host as the board sees it."""
        return "10.0.2.2" if self.virtual else str(self.settings["host_address"])

    def network(self, on: bool) -> None:
        """Pulls and plugs the network cable; connections know nothing of it. Needs the feature `network-switch`."""
        assert self._qemu, "only a virtual board's cable can be pulled"
        for link in self.settings["links"]:
            self._qemu.monitor_command("set_link", {"name": link, "up": on})

    def boot(self, *boot_args: str, machine_args: str = "", told: bool = True) -> float:
        """Power on and wait until commands run. Seconds that it took. `machine_args` are a virtual machine's; a board that
        forgets the time is told it, unless not `told`."""
        began = time.monotonic()
        if self._qemu and self._qemu.status:
            # A boot that nobody heard of the end of.
            self.cut_power()
        if self._qemu:
            port = free_port()
            self.target.get_resource("NetworkService").port = port
            usual = self._qemu.boot_args, self._qemu.extra_args
            self._qemu.boot_args = " ".join([usual[0], *boot_args])
            self._qemu.extra_args = f"{usual[1]} {machine_args}"
            self.target.activate(self._qemu)
            self._qemu.boot_args, self._qemu.extra_args = usual
            self._qemu.on()
            self._qemu.monitor_command(
                "human-monitor-command", {"command-line": f"hostfwd_add tcp:127.0.0.1:{port}-10.0.2.15:22"}
            )
            self.wait_ready()
        else:
            power = self.target.get_driver("PowerProtocol")
            power.on()
        self.target.activate(self._shell)
        if self._files is not self._shell:
            self.target.activate(self._files)
        self.on = True
        if self.settings.get("data_disk"):
            self.run("mountpoint -q /data || { echo 'the data disk is not mounted: a cut would prove nothing' >&2; exit 1; }")
        if told:
            self._tell_time()
        return time.monotonic() - began

    def _tell_time(self) -> None:
        """As a network's time would, for boards without a clock chip (`forgets_time`)."""
        if not self.settings.get("forgets_time"):
            return
        offsets = []
        for _ in range(3):
            before = time.time()
            board = self.clock()
            after = time.time()
            offsets.append((after - before, (before + after) / 2 - board))
        # By how much, not to what: the command may take its time.
        self.run(f"date -s @$(date +%s.%N | awk '{{ printf \"%.3f\", $1 + {min(offsets)[1]:.3f} }}')")

    def wait_ready(self) -> None:
        """Waits for the rig's word on the console that SSH runs: QEMU's network takes a connection before the guest can
        answer it, and it then hangs. After a reset that the board made by itself, too."""
        assert self._qemu, "needs the rig's console"
        self._qemu.expect("rig: ready", timeout=float(self.settings.get("ready_seconds", 120)) * self.patience)

    def cut_power(self) -> float:
        """Take the power away, now. The host's monotonic time of it, in seconds."""
        if self._qemu:
            at = time.monotonic()
            os.kill(self._qemu._child.pid, signal.SIGKILL)
            self._qemu._child.wait()
            # The driver's own off() would ask the dead process to quit.
            self._qemu._child, self._qemu.status = None, 0
        else:
            power = self.target.get_driver("PowerProtocol")
            at = time.monotonic()
            power.off()
            time.sleep(float(self.settings.get("discharge_seconds", 5)))
        self._let_go()
        return at

    def answers(self) -> bool:
        """Whether commands still run, over a connection made anew if need be."""
        try:
            return self.try_run("true")[2] == 0
        except (ExecutionError, subprocess.SubprocessError):
            pass
        try:
            self.reset_connection()
            return self.try_run("true")[2] == 0
        except (ExecutionError, subprocess.SubprocessError):
            return False

    def reset_connection(self) -> None:
        """After the board has started anew by itself, e.g. by its watchdog: commands go to the new system."""
        self._drop_forwards()
        for driver in {self._files, self._shell} - {self._qemu}:
            try:
                self.target.deactivate(driver)
            except (ExecutionError, subprocess.SubprocessError):
                pass
        self.target.activate(self._shell)
        if self._files is not self._shell:
            self.target.activate(self._files)
        self._tell_time()

    def _let_go(self) -> None:
        self.on = False
        self._drop_forwards()
        for driver in {self._files, self._shell} - {self._qemu}:
            try:
                self.target.deactivate(driver)
            except (ExecutionError, subprocess.SubprocessError):
                pass
        if self._qemu:
            self.target.deactivate(self._qemu)

    def try_run(self, command: str, timeout: float = 120) -> tuple[str, str, int]:
        out, err, code = self._shell.run(command, timeout=timeout * self.patience)
        return "\n".join(out), "\n".join(err), code

    def run(self, command: str, timeout: float = 120) -> str:
        out, err, code = self.try_run(command, timeout)
        if code != 0:
            raise CommandFailed(f"`{command}` ended with {code}: {err or out}")
        return out

    def clock(self) -> float:
        """The board's wall clock, in seconds."""
        return float(self.run("date +%s.%N"))

    def write(self, path: str, text: str) -> None:
        quoted = text.replace("'", "'\\''")
        self.run(f"mkdir -p $(dirname {path}) && printf %s '{quoted}' > {path}")

    def get(self, remote: str, local: Path) -> None:
        """One file of the board, byte for byte."""
        self._files.get(remote, str(local))

    def connect(self, socket: str) -> http.client.HTTPConnection:
        """A connection to a server at a Unix socket of the board; needs the feature `ssh`. It is the caller's to close."""
        if socket not in self._forwarded:
            forward = self._shell.forward_unix_socket(socket)
            self._forwarded[socket] = forward, forward.__enter__()
        return http.client.HTTPConnection("localhost", self._forwarded[socket][1], timeout=30 * self.patience)

    def http(self, socket: str, path: str) -> dict:
        """What a server at a Unix socket of the board answers to a GET. Raises OSError where nobody answers."""
        connection = self.connect(socket)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except http.client.HTTPException as fault:
            raise ConnectionError(f"GET {path}: {fault}") from fault
        finally:
            connection.close()
        if answer.status != 200:
            raise CommandFailed(f"GET {path}: {answer.status} {body.decode(errors='replace')}")
        return json.loads(body)

    def _drop_forwards(self) -> None:
        """Those of a connection that is gone, or about to be."""
        for forward, _ in self._forwarded.values():
            try:
                forward.__exit__(None, None, None)
            except (ExecutionError, subprocess.SubprocessError):
                pass
        self._forwarded = {}

    def stream(self, command: str) -> subprocess.Popen:
        """A command whose output is read while it runs; needs the feature `ssh`."""
        ssh = self._shell
        assert isinstance(ssh, SSHDriver), "streams need SSH"
        service = ssh.networkservice
        prefix = ["ssh", "-x", *ssh.ssh_prefix, "-p", str(service.port), "-l", service.username, service.address]
        return subprocess.Popen([*prefix, command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _has(target: Target, driver: type) -> bool:
    return any(isinstance(d, driver) for d in target.drivers)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
