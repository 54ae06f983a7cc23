"""A real OpenSSH server on loopback, run by whoever runs the tests, root or not.

Nothing outside its folder is touched but /run/sshd, which sshd wants when it is root's.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

from engine.processes import end_with_parent
from engine.servers.ssh import Target

SSHD = shutil.which("sshd") or next((p for p in ("/usr/sbin/sshd", "/usr/local/sbin/sshd") if os.path.exists(p)), "")
MISSING = "There is no sshd: install it (apt-get install openssh-server), the tests of servers need a real one."
CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PrintMotd no
PrintLastLog no
UseDNS no
MaxStartups 100:30:200
Subsystem sftp internal-sftp
LogLevel VERBOSE
{extra}
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def keygen(path: Path, *arguments: str) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path), *arguments], check=True)
    return path


class Sshd:
    """One server. `target()` is how to reach it, directly or through another port; `config` is ssh's file of settings."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        assert SSHD, MISSING
        self.folder, self.extra, self.port = folder, extra, 0
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self.user = getpass.getuser()
        self.process: subprocess.Popen[bytes] | None = None
        for name in ("host_key", "id"):
            if not (folder / name).exists():
                keygen(folder / name)
        shutil.copy(folder / "id.pub", folder / "authorized_keys")

    def start(self) -> Sshd:
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        for _ in range(5):  # the port may be taken by another in between
            self.port = self.port or free_port()
            if self._started():
                return self
            self.stop()
            self.port = 0
        raise AssertionError("sshd did not start:\n" + self.log())

    def _started(self) -> bool:
        file = self.folder / "sshd_config"
        file.write_text(CONFIG.format(port=self.port, folder=self.folder, extra=self.extra))
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent,  # a run of the tests that is killed leaves no server behind
            )
        end = time.monotonic() + 10
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.5) as s:
                s.settimeout(5)
                if s.recv(8).startswith(b"SSH-2.0"):
                    return True
            time.sleep(0.01)
        return False

    def log(self) -> str:
        return (self.folder / "sshd.log").read_text()

    def public_key(self) -> str:
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    def fingerprint(self) -> str:
        line = ["ssh-keygen", "-l", "-f", str(self.folder / "host_key.pub")]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()[1]

    def target(self, port: int = 0, known: str | None = None, more: str = "", user: str = "") -> Target:
        """Through `port`, the server's own by default. `known`: what is known of its key, by default the truth."""
        port = port or self.port
        n = len(list(self.folder.glob("config*")))
        hosts = self.folder / f"known_hosts{n}"
        hosts.write_text(f"[127.0.0.1]:{port} {self.public_key()}\n" if known is None else known)
        config = self.folder / f"config{n}"
        config.write_text(
            f"Host box\n  HostName 127.0.0.1\n  Port {port}\n  User {user or self.user}\n"
            f"  IdentityFile {self.folder}/id\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {hosts}\n  GlobalKnownHostsFile none\n{more}\n"
        )
        return Target("box", config=str(config))

    def sessions(self) -> list[psutil.Process]:
        """The processes of every connection now, what was started in them too."""
        if self.process is None or self.process.poll() is not None:
            return []
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            for each in self.sessions():
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(signal.SIGKILL)
            self.process.terminate()
            self.process.wait(10)
        self.process = None

    def __enter__(self) -> Sshd:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
