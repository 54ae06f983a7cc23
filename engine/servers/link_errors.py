"""What can go wrong between here and a server: each with a sentence, a cause, a next step, and whether time may heal it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from engine.errors import DojangError

LONGEST = 300  # characters of a server's own words that are shown


class LinkError(DojangError):
    """Something between here and a server. `cause` says why, as far as known; `retry`: whether trying again may help by
    itself; `details` is for programs, such as a key's `fingerprint`."""

    kind: ClassVar[str] = "LINK"
    sentence: ClassVar[str] = "The server cannot be used."
    advice: ClassVar[str] = ""
    retry: ClassVar[bool] = False

    def __init__(self, cause: str = "", *, where: str = "", hint: str = "", **details: Any) -> None:
        self.cause, self.where, self.details = plain(cause), plain(where), details
        sentence = f"{self.where}: {self.sentence}" if self.where else self.sentence
        message = f"{sentence} ({self.cause})" if self.cause else sentence
        super().__init__(message, code=self.kind, hint=hint or self.advice)


class Unreachable(LinkError):
    kind, retry = "UNREACHABLE", True
    sentence = "The server cannot be reached."
    advice = "See that it is on and that its name and port are right; the link is tried again by itself."


class Timeout(LinkError):
    kind, retry = "TIMEOUT", True
    sentence = "The server did not answer in time."
    advice = "The network may be slow or blocked; the link is tried again by itself."


class LinkLost(LinkError):
    """The outcome of what was under way is unknown, never “failed”."""

    kind, retry = "LINK_LOST", True
    sentence = "The link to the server was lost."
    advice = "What runs there goes on; the link is tried again by itself."


class Closed(LinkError):
    kind = "LINK_CLOSED"
    sentence = "The link was closed here."


class HostKeyUnknown(LinkError):
    """`details["fingerprint"]` and `details["key_type"]` where ssh told them."""

    kind = "HOST_KEY_UNKNOWN"
    sentence = "The server's host key is not known yet."
    advice = "Compare the fingerprint with the one its administrator gives you, then accept it."


class HostKeyChanged(LinkError):
    """There is no way to accept this from here, on purpose."""

    kind = "HOST_KEY_CHANGED"
    sentence = "The server's host key is not the one known: somebody may be listening, or the server was set up anew."
    advice = "Ask its administrator. If the change is right, remove the old key yourself: ssh-keygen -R HOST"


class Denied(LinkError):
    kind = "DENIED"
    sentence = "The server refused the login."
    advice = (
        "See that the user name is right, that your key is in its authorized_keys, and that an agent holds it if it has a "
        "passphrase: ssh -v HOST tells more."
    )


class NeedsInteraction(LinkError):
    kind = "NEEDS_INTERACTION"
    sentence = "The server asks for a password, a code or a passphrase."
    advice = "Log in once by hand when offered; nothing you type is stored."


class SshConfig(LinkError):
    kind = "SSH_CONFIG"
    sentence = "ssh cannot use its settings for this server."
    advice = "Mend ~/.ssh/config, then try again."


class NoSsh(LinkError):
    kind = "NO_SSH"
    sentence = "There is no ssh program on this machine."
    advice = "Install OpenSSH's client (openssh-client)."


class NoPython(LinkError):
    kind = "NO_PYTHON"
    sentence = "The server has no python3 that can be used: 3.8 or newer is needed."
    advice = "Install python3 there, or put it on the PATH of logins without a terminal."


class NoBanner(LinkError):
    kind = "NO_BANNER"
    sentence = "The login worked, but what answered is not our agent."
    advice = "The account may allow fixed commands only, or a start file of its shell ends or replaces the session."


class ProtocolMismatch(LinkError):
    kind = "PROTOCOL_MISMATCH"
    sentence = "The agent on the server speaks otherwise than this program."
    advice = "Close the link and open it again; should it stay so, a proxy may be changing what passes."


class TooManySessions(LinkError):
    kind, retry = "TOO_MANY_SESSIONS", True
    sentence = "The server takes no more sessions now."
    advice = "Close other connections to it, or have MaxSessions and MaxStartups raised there."


class ReadOnly(LinkError):
    kind = "READ_ONLY"
    sentence = "The server's folder cannot be written."
    advice = "Choose another folder on the server, or have its rights mended."


class DiskFull(LinkError):
    kind = "DISK_FULL"
    sentence = "No space is left on the server, or your quota there is used up."
    advice = "Free some space there, then try again."


class KillPolicy(LinkError):
    kind = "KILL_POLICY"
    sentence = "The server ends everything of yours when you log out."
    advice = "Run once on the server: loginctl enable-linger"


class NoSlurm(LinkError):
    kind = "NO_SLURM"
    sentence = "Slurm cannot be used on the server."
    advice = "Log in to a node from which sbatch works; it must be on the PATH of logins without a terminal."


class SchedulerDown(LinkError):
    """Whether it took what it was asked for is unknown."""

    kind, retry = "SCHEDULER_DOWN", True
    sentence = "Slurm does not answer now."
    advice = "What it runs goes on; it is asked again by itself."


class ImpossibleRequest(LinkError):
    kind = "IMPOSSIBLE_REQUEST"
    sentence = "Slurm refuses the job."
    advice = "Change what is asked for, the server's entry in servers.toml or the number of GPUs, then resume."


class NotThere(LinkError):
    kind = "NOT_THERE"
    sentence = "The server does not have it."


class Conflict(LinkError):
    """`details` says what is there."""

    kind = "CONFLICT"
    sentence = "That is taken on the server, or in use."


class Refused(LinkError):
    kind = "REFUSED"
    sentence = "The agent refused the request."


class AgentFault(LinkError):
    kind = "AGENT_FAULT"
    sentence = "The agent on the server failed at this."
    advice = "Try again; should it stay so, report it with these words."


BY_KIND: Mapping[str, type[LinkError]] = {
    each.kind: each
    for each in (
        NoPython, ProtocolMismatch, ReadOnly, DiskFull, KillPolicy, NoSlurm, SchedulerDown, ImpossibleRequest, NotThere,
        Conflict, Refused, AgentFault, Closed,
    )
}  # fmt: skip


def plain(text: str, longest: int = LONGEST) -> str:
    """A server's words as one line that does nothing to a terminal."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text[: longest * 4]).split())
    return words if len(words) <= longest else words[: longest - 1] + "…"


def from_agent(error: Any, where: str = "") -> LinkError:
    """The error of an agent's reply, which may hold anything."""
    told = error if isinstance(error, dict) else {}
    details = told.get("details")
    details = (
        {str(k): v for k, v in details.items() if str(k) not in ("cause", "where", "hint", "self")}
        if isinstance(details, dict)
        else {}
    )
    return BY_KIND.get(str(told.get("kind")), AgentFault)(str(told.get("text", "")), where=where, **details)


__all__ = [
    "AgentFault",
    "Closed",
    "Conflict",
    "Denied",
    "DiskFull",
    "HostKeyChanged",
    "HostKeyUnknown",
    "ImpossibleRequest",
    "KillPolicy",
    "LinkError",
    "LinkLost",
    "NeedsInteraction",
    "NoBanner",
    "NoPython",
    "NoSlurm",
    "NoSsh",
    "NotThere",
    "ProtocolMismatch",
    "ReadOnly",
    "Refused",
    "SchedulerDown",
    "SshConfig",
    "Timeout",
    "TooManySessions",
    "Unreachable",
    "from_agent",
    "plain",
]  # fmt: skip
