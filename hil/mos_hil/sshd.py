"""OpenSSH's server on the host, with keys and a folder of its own, for uploads of a board."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from .board import free_port


class Sshd:
    def __init__(self, folder: Path) -> None:
        home = folder / "sshd"
        self.folder = home / "files"
        self.folder.mkdir(parents=True)
        home.chmod(0o700)
        self.client_key = home / "client"
        host_key = home / "host"
        for key in (self.client_key, host_key):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        self.fingerprint = subprocess.run(
            ["ssh-keygen", "-l", "-E", "sha256", "-f", f"{host_key}.pub"], check=True, capture_output=True, text=True
        ).stdout.split()[1]
        self.port = free_port()
        config = home / "config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nAuthorizedKeysFile {self.client_key}.pub\nPidFile none\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
            "ClientAliveInterval 3\nClientAliveCountMax 2\n"
        )
        server = shutil.which("sshd", path="/usr/sbin:/sbin:/usr/bin")
        assert server, "the host has no sshd: install openssh-server"
        if Path("/run").stat().st_uid == 0:
            try:
                Path("/run/sshd").mkdir(exist_ok=True)
            except PermissionError:
                pass
        self._log = (home / "log").open("wb")
        self._process = subprocess.Popen([server, "-D", "-e", "-f", str(config)], stdout=self._log, stderr=self._log)
        try:
            until = time.monotonic() + 60
            while b"listening" not in (home / "log").read_bytes():
                assert self._process.poll() is None and time.monotonic() < until, (home / "log").read_text()
                time.sleep(0.05)
        except BaseException:
            # Nobody else knows of it yet.
            self.end()
            raise

    def cut_connections(self) -> None:
        """Ends the sessions, as a server does that has heard nothing for long; it goes on to listen."""
        try:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        except FileNotFoundError:
            return
        for child in children:
            try:
                os.kill(int(child), signal.SIGTERM)
            except ProcessLookupError:
                pass

    def end(self) -> None:
        try:
            if self._process.poll() is None:
                self.cut_connections()
        finally:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._log.close()
