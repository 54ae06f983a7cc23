"""Servers over the system's own ssh: its settings, keys, jump hosts and agents hold; host keys are always checked.

Nothing of `~/.ssh` is written here but by ssh itself, when a person accepts a key.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.servers.askpass import Ask, Asker, runtime
from engine.servers.link_errors import (
    Denied,
    HostKeyChanged,
    HostKeyUnknown,
    LinkError,
    LinkLost,
    NeedsInteraction,
    NoBanner,
    NoPython,
    NoSsh,
    ReadOnly,
    SshConfig,
    Timeout,
    TooManySessions,
    Unreachable,
)
from engine.servers.transport import BOOT, Pipe, Stage, too_old

CONNECT_TIMEOUT = 10  # s
ALIVE = ("ServerAliveInterval=4", "ServerAliveCountMax=3")
KEPT = 3600  # s that a connection opened by hand outlives its last use
KEPT_ASKED = 600  # s the same, where the password was asked for in the app
LOCAL_TIMEOUT = 10.0  # s for what ssh does without a network
HOST = re.compile(r"[\w.:%\[\]][\w.:%\[\]-]{0,254}")
USER = re.compile(r"[\w.@+\\][\w.@+\\-]{0,127}")
KEY = re.compile(r"(\S+) key fingerprint is (SHA256:[A-Za-z0-9+/=]+|MD5:[0-9a-f:]+)")
NAMED = re.compile(r"authenticity of host '([^']*)'")


@dataclass(frozen=True, slots=True)
class Target:
    """Where to: an alias of ssh's settings or a host. `config`: another file of settings, by default DOJANG_SSH_CONFIG.

    Raises SshConfig for what could be taken for an option or a command.
    """

    host: str
    user: str = ""
    port: int | None = None
    config: str = field(default_factory=lambda: os.environ.get("DOJANG_SSH_CONFIG", ""))

    def __post_init__(self) -> None:
        hint = "Give an alias of ~/.ssh/config or the name of a host, such as gpu1 or me@gpu1.example.org"
        if not HOST.fullmatch(self.host):
            raise SshConfig(f"{self.host[:80]!r} is no name of a host", hint=hint)
        if self.user and not USER.fullmatch(self.user):
            raise SshConfig(f"{self.user[:80]!r} is no name of a user", hint=hint)
        if self.port is not None and not 0 < self.port < 65536:
            raise SshConfig(f"{self.port} is no port", hint="A port is a number from 1 to 65535.")

    @classmethod
    def of(cls, text: str) -> Target:
        """As a person writes it: `host`, `user@host`, `user@host:port`, `[address]:port`."""
        user, _, host = text.strip().rpartition("@")
        at, _, port = host.rpartition(":")
        if at and port.isdecimal() and (":" not in at or at.endswith("]")):
            return cls(at.removeprefix("[").removesuffix("]"), user, int(port))
        return cls(host, user)

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        return (f"{self.user}@" if self.user else "") + self.host + port


def _to(target: Target) -> list[str]:
    """The end of every command line: nothing after it is taken for an option."""
    port = ["-p", str(target.port)] if target.port else []
    user = ["-l", target.user] if target.user else []
    return [*port, *user, "--", target.host]


def _ssh(target: Target, *options: str) -> list[str]:
    return ["ssh", *(["-F", target.config] if target.config else []), *(w for o in options for w in ("-o", o))]


def _quietly(
    command: Sequence[str], timeout: float, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ssh apart from any terminal. Raises NoSsh, Timeout."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout,
            start_new_session=True, env=env, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as e:
        raise Timeout(f"ssh took more than {timeout:g} s") from e
    except FileNotFoundError as e:
        raise NoSsh from e


def settings(target: Target) -> dict[str, str]:
    """What ssh would use for this target, by option in small letters (the first value of each). Raises SshConfig."""
    done = _quietly([*_ssh(target), "-G", *_to(target)], LOCAL_TIMEOUT)
    if done.returncode:
        raise SshConfig(done.stderr.strip().rpartition("\n")[2])
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name.lower(), value)
    return found


def _control(target: Target) -> str:
    """The option that says where a connection opened by hand is found: the person's own place if they have one."""
    own = settings(target).get("controlpath", "none")
    return f"ControlPath={runtime()}/%C" if own == "none" else f"ControlPath={own}"


def command(target: Target, ask: bool = False) -> list[str]:
    """The command line of a link. What is fixed here, no settings of the person's can loosen."""
    control = ("ControlMaster=auto", f"ControlPersist={KEPT_ASKED}") if ask else ("ControlMaster=no",)
    return [
        *_ssh(
            target,
            "BatchMode=" + ("no" if ask else "yes"),
            "StrictHostKeyChecking=" + ("ask" if ask else "yes"),
            "NoHostAuthenticationForLocalhost=no",
            "ForwardAgent=no",
            "ForwardX11=no",
            "ClearAllForwardings=yes",
            "PermitLocalCommand=no",
            "RemoteCommand=none",
            "RequestTTY=no",
            "EscapeChar=none",
            "LogLevel=ERROR",  # a server's greeting would be mixed with what ssh itself says
            "ConnectionAttempts=1",
            f"ConnectTimeout={CONNECT_TIMEOUT}",
            *ALIVE,
            *control,
            _control(target),
        ),
        "-T",
        "-a",
        "-x",
        *_to(target),
        BOOT,
    ]  # fmt: skip


def interactive_command(target: Target) -> list[str]:
    """What to run on a real terminal so that the person can log in by hand: host key, password, code, passphrase.

    It ends as soon as they are in; links then go through that connection, for KEPT seconds after its last use.
    """
    options = ("ControlMaster=yes", f"ControlPersist={KEPT}", "StrictHostKeyChecking=ask", "ForwardAgent=no")
    more = ("ForwardX11=no", "ClearAllForwardings=yes", "PermitLocalCommand=no", "RemoteCommand=none", "RequestTTY=no")
    return [*_ssh(target, *options, *more, *ALIVE, _control(target)), "-f", "-N", "-a", "-x", *_to(target)]


def logged_in(target: Target) -> bool:
    """Whether a connection opened by hand is there to be used."""
    return not _quietly([*_ssh(target, _control(target)), "-O", "check", *_to(target)], LOCAL_TIMEOUT).returncode


def log_out(target: Target) -> None:
    """End the connection opened by hand, if there is one, and every link through it."""
    _quietly([*_ssh(target, _control(target)), "-O", "exit", *_to(target)], LOCAL_TIMEOUT)


def open(target: Target, *, ask: Ask | None = None) -> Pipe:
    """The agent on `target`. With `ask`, what ssh asks a person goes there; without, such a login is refused.

    Raises NoSsh, SshConfig. Everything else is told by the transport's `failure`.
    """
    asked: list[str] = []

    def answer(kind: str, text: str) -> str | None:
        asked.append(kind)
        return ask(kind, text) if ask else None

    asker = Asker(answer)
    env = {**os.environ, **asker.environment()}

    def explain(code: int | None, said: str, stage: Stage) -> LinkError:
        error = classify(code, said, stage, asked)
        return _with_key(target, error) if isinstance(error, HostKeyUnknown) and not ask else error

    try:
        return Pipe(command(target, ask is not None), explain, env, lambda: asker.asking, asker.close)
    except FileNotFoundError as e:
        asker.close()
        raise NoSsh from e
    except BaseException:
        asker.close()
        raise


def classify(code: int | None, said: str, stage: Stage, asked: Sequence[str] = ()) -> LinkError:
    """What ssh's last words mean. `asked`: the kinds of questions that it had."""
    cause = _last_line(said)
    if stage != "opening" or code is None or code < 0:  # ssh itself was ended: nobody refused anything
        return LinkLost(cause)
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said or "REVOKED HOST KEY" in said or "host key has changed" in said:
        return HostKeyChanged("the key is revoked" if "REVOKED" in said else "")
    if "Host key verification failed" in said or "key is known for" in said:
        return HostKeyUnknown()
    if found := re.search(r"Permission denied \(([^)]*)\)|Too many authentication failures", said):
        methods = found[1] or ""
        wants = not asked and any(m in methods for m in ("password", "keyboard-interactive"))
        return NeedsInteraction(f"it takes {methods}") if wants or "passphrase" in asked else Denied(cause)
    for pattern, kind in PATTERNS:
        if re.search(pattern, said, re.IGNORECASE):
            return kind(cause)
    if too := too_old(said):
        return too
    if code == 127 or re.search(r"python3: (command )?not found|Unknown command: python3|python3: Command not", said):
        return NoPython(cause)
    if code == 126:
        return NoPython(cause)
    if code == 255:
        return Unreachable(cause or "ssh ended without a word")
    return NoBanner(cause or f"the login ended with code {code}")


PATTERNS: tuple[tuple[str, type[LinkError]], ...] = (
    (r"Bad configuration option|Bad owner or permissions|terminating, \d+ bad|unsupported option|no argument after", SshConfig),
    (r"Could not resolve hostname|Connection refused|No route to host|Network is unreachable|Host is down", Unreachable),
    (r"timed out|Timeout, server", Timeout),
    (r"Session open refused|administratively prohibited|open failed|MaxSessions|MaxStartups", TooManySessions),
    (r"kex_exchange_identification|Connection (closed|reset) by|banner exchange|Broken pipe|nologin|booting up", Unreachable),
    (r"no matching|Unable to negotiate|incorrect signature|error in libcrypto|UNPROTECTED PRIVATE KEY", SshConfig),
)  # fmt: skip


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else ""


@dataclass(frozen=True, slots=True)
class HostKey:
    """A key that a server showed and that is not known here. `host`: whose, which may be a jump host's."""

    host: str
    kind: str
    fingerprint: str


def host_key(target: Target) -> HostKey | None:
    """The unknown key that ssh would ask about first; None where it has no such question. Raises Timeout, NoSsh."""
    seen = _meet(target, "")[0]
    return seen[0] if seen else None


def trust(target: Target, fingerprint: str) -> None:
    """Have ssh remember the key of this very fingerprint, if the server or a jump host before it shows it now.

    Raises HostKeyUnknown when another is shown, and any LinkError. Behind a jump host the next key is asked about next.
    """
    seen, said = _meet(target, fingerprint)
    if fingerprint in [key.fingerprint for key in seen]:
        if "Failed to add the host" in said:
            hint = "Check the rights of ~/.ssh/known_hosts"
            raise ReadOnly("ssh could not write its list of known hosts here", hint=hint)
        return
    if seen:
        key = seen[0]
        raise HostKeyUnknown("it shows another key now", host=key.host, key_type=key.kind, fingerprint=key.fingerprint)
    error = classify(255, said, "opening")
    if not isinstance(error, (Denied, NeedsInteraction)):  # those come after the key, which then is known already
        raise error


def _meet(target: Target, accepted: str) -> tuple[list[HostKey], str]:
    """Connect as far as the question about a key, accept the one given, log in by nothing; keys asked about, ssh's words."""
    seen: list[HostKey] = []
    guard = threading.Lock()

    def answer(kind: str, text: str) -> str | None:
        found, named = KEY.search(text), NAMED.search(text)
        if kind != "host-key" or not found:
            return None
        with guard:
            seen.append(HostKey(named[1] if named else target.host, found[1], found[2]))
        # ssh compares what is typed with the key that it has: no other can slip in between
        return accepted if accepted and found[2] == accepted else "no"

    asker = Asker(answer)
    try:
        options = (
            "BatchMode=no", "StrictHostKeyChecking=ask", "NoHostAuthenticationForLocalhost=no", "LogLevel=ERROR",
            "PreferredAuthentications=none", "ControlMaster=no", "ControlPath=none", "ClearAllForwardings=yes",
            "PermitLocalCommand=no", "RemoteCommand=none", f"ConnectTimeout={CONNECT_TIMEOUT}",
        )  # fmt: skip
        line = [*_ssh(target, *options), "-T", "-a", "-x", *_to(target), "true"]
        done = _quietly(line, CONNECT_TIMEOUT + 10.0, {**os.environ, **asker.environment()})
    finally:
        asker.close()
    return seen, done.stderr


def _with_key(target: Target, error: HostKeyUnknown) -> HostKeyUnknown:
    """The same error with the fingerprint to be compared, where the server shows it once more."""
    try:
        key = host_key(target)
    except LinkError:
        return error
    if key is None:
        return error
    return HostKeyUnknown(
        f"{key.kind} {key.fingerprint}", host=key.host, key_type=key.kind, fingerprint=key.fingerprint
    )


__all__ = [
    "Ask", "HostKey", "Target", "classify", "command", "host_key", "interactive_command", "log_out", "logged_in", "open",
    "settings", "trust",
]  # fmt: skip
