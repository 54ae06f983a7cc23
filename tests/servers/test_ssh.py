"""Links over the system's ssh to a real sshd: keys are checked, questions reach a person or nobody, nothing else runs."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from engine.servers import askpass, ssh, ssh_config
from engine.servers.link import Link, Pace
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
    SshConfig,
    Timeout,
    TooManySessions,
    Unreachable,
)
from engine.servers.ssh import Target
from engine.servers.transport import BOOT
from tests.played import ROOT, until
from tests.servers.proxy import Proxy
from tests.servers.sshd import Sshd, keygen

PACE = Pace(pauses=(0.05, 0.2), every=0.3, frozen=3.0)
Open = Callable[..., Link]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Open]:
    """Opens links that are closed after the test."""
    opened: list[Link] = []

    def open(target: Target, ask: askpass.Ask | None = None) -> Link:
        opened.append(Link(lambda: ssh.open(target, ask=ask), root=str(tmp_path / "root"), name="box", pace=PACE))
        return opened[-1]

    yield open
    for each in opened:
        each.close()


def refused(link: Link) -> LinkError:
    with pytest.raises(LinkError) as caught:
        link.call("hello")
    return caught.value


def known_file(target: Target) -> Path:
    line = next(line for line in Path(target.config).read_text().splitlines() if "UserKnownHostsFile" in line)
    return Path(line.split()[1])


# Host keys


def test_an_unknown_key_is_shown_and_refused(sshd: Sshd, connect: Open) -> None:
    target = sshd.target(known="", more="  StrictHostKeyChecking no")  # what the person's settings allow does not count
    link = connect(target)
    error = refused(link)
    assert isinstance(error, HostKeyUnknown)
    assert error.details["fingerprint"] == sshd.fingerprint() and sshd.fingerprint() in error.message
    assert link.state.name == "down" and known_file(target).read_text() == ""


def test_an_unknown_key_is_taken_only_by_its_fingerprint(sshd: Sshd, connect: Open) -> None:
    target = sshd.target(known="")
    other = sshd.fingerprint()[:-4] + "AAAA"
    with pytest.raises(HostKeyUnknown) as caught:
        ssh.trust(target, other)
    assert caught.value.details["fingerprint"] == sshd.fingerprint() and known_file(target).read_text() == ""
    ssh.trust(target, sshd.fingerprint())
    assert sshd.public_key().split()[1] in known_file(target).read_text()
    assert connect(target).call("hello")["proto"] == 1
    assert ssh.host_key(target) is None


def test_a_changed_key_cannot_be_taken(sshd: Sshd, connect: Open, tmp_path: Path) -> None:
    other = keygen(tmp_path / "other").with_suffix(".pub").read_text().split()
    line = f"[127.0.0.1]:{sshd.port} {other[0]} {other[1]}\n"
    target = sshd.target(known=line)
    asked: list[str] = []

    def yes(kind: str, text: str) -> str:
        asked.append(kind)
        return "yes"

    for ask in (None, yes):
        assert isinstance(refused(connect(target, ask)), HostKeyChanged)
    with pytest.raises(HostKeyChanged):
        ssh.trust(target, sshd.fingerprint())
    assert asked == [] and known_file(target).read_text() == line
    assert "accept" not in HostKeyChanged.advice


def test_a_key_signed_by_a_known_authority_is_known(tmp_path: Path, connect: Open) -> None:
    folder = Path(os.environ["XDG_RUNTIME_DIR"]) / "ca"
    server = Sshd(folder, extra=f"HostCertificate {folder}/host_key-cert.pub")
    authority = keygen(folder / "ca")
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "h", "-h", "-n", "127.0.0.1", str(folder / "host_key.pub")]
    subprocess.run(sign, check=True)
    with server:
        key = authority.with_suffix(".pub").read_text()
        assert connect(server.target(known=f"@cert-authority * {key}")).call("hello")["proto"] == 1
        revoked = f"@revoked * {server.public_key()}\n@revoked * {key}"
        assert isinstance(refused(connect(server.target(known=revoked))), (HostKeyChanged, HostKeyUnknown))


def hashed(target: Target) -> Target:
    """Its list of known hosts with every name replaced by a hash of it, as many distributions do."""
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known_file(target))], check=True, capture_output=True)
    assert known_file(target).read_text().startswith("|1|")
    return target


def test_names_of_known_hosts_may_be_hashed_and_are_of_one_port(sshd: Sshd, connect: Open, tmp_path: Path) -> None:
    other = " ".join(keygen(tmp_path / "other").with_suffix(".pub").read_text().split()[:2])
    here = f"[127.0.0.1]:{sshd.port}"
    assert connect(hashed(sshd.target())).call("hello")["proto"] == 1
    assert isinstance(refused(connect(hashed(sshd.target(known=f"{here} {other}\n")))), HostKeyChanged)
    for known in (f"[127.0.0.1]:1 {sshd.public_key()}\n", f"127.0.0.1 {other}\n"):  # of other ports: unknown at this
        target = hashed(sshd.target(known=known))
        error = refused(connect(target))
        assert isinstance(error, HostKeyUnknown) and error.details["fingerprint"] == sshd.fingerprint()
        ssh.trust(target, sshd.fingerprint())
        assert connect(target).call("hello")["proto"] == 1
    several = f"127.0.0.1 {other}\n{here} {sshd.public_key()}\n"  # another server's at the usual port
    assert connect(sshd.target(known=several)).call("hello")["proto"] == 1


def test_a_revoked_key_has_no_way_in(sshd: Sshd, connect: Open) -> None:
    here = f"[127.0.0.1]:{sshd.port}"
    for known in (
        f"@revoked {here} {sshd.public_key()}\n",
        f"{here} {sshd.public_key()}\n@revoked * {sshd.public_key()}\n",
    ):
        target = sshd.target(known=known)
        for ask in (None, lambda kind, text: "yes"):
            error = refused(connect(target, ask))
            assert isinstance(error, HostKeyChanged) and "revoked" in error.message
        with pytest.raises(LinkError):
            ssh.trust(target, sshd.fingerprint())
        assert known_file(target).read_text() == known


def test_no_settings_loosen_what_is_fixed(sshd: Sshd) -> None:
    loose = "\n".join(
        f"  {o}"
        for o in (
            "StrictHostKeyChecking accept-new", "ForwardAgent yes", "ForwardX11 yes", "LocalForward 127.0.0.1:1 127.0.0.1:1",
            "PermitLocalCommand yes", "LocalCommand touch /tmp/never", "RemoteCommand id", "RequestTTY force",
            "NoHostAuthenticationForLocalhost yes", "BatchMode no",
        )
    )  # fmt: skip
    target = sshd.target(more=loose)
    for ask, strict in ((False, "true"), (True, "ask")):
        line = ssh.command(target, ask)
        done = subprocess.run([*line[:-1][:1], "-G", *line[1:-1]], capture_output=True, text=True, check=True)
        found = dict(entry.partition(" ")[::2] for entry in done.stdout.splitlines())
        assert found["stricthostkeychecking"] == strict and found["batchmode"] == ("no" if ask else "yes")
        for name in (
            "forwardagent",
            "forwardx11",
            "permitlocalcommand",
            "requesttty",
            "nohostauthenticationforlocalhost",
        ):
            assert found[name] in ("no", "false"), name
        assert found.get("remotecommand", "none") == "none" and "-A" not in line
        assert found["clearallforwardings"] == "yes"
    assert "accept-new" not in " ".join(ssh.interactive_command(target))


# Logging in


def test_a_wrong_user_is_denied_once(sshd: Sshd, connect: Open) -> None:
    link = connect(sshd.target(user="nobody-of-here"))
    assert isinstance(refused(link), Denied)
    before = sshd.log().count("Connection from")
    time.sleep(0.6)
    assert link.state.name == "down" and sshd.log().count("Connection from") == before


@pytest.fixture
def locked_key(sshd: Sshd, tmp_path: Path) -> Target:
    """A target whose key has the passphrase “s3cret”."""
    key = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "s3cret", "-f", str(key)], check=True)
    with (sshd.folder / "authorized_keys").open("a") as f:
        f.write(key.with_suffix(".pub").read_text())
    target = sshd.target()
    config = Path(target.config)
    config.write_text(config.read_text().replace(f"{sshd.folder}/id", str(key)))
    return target


def test_a_passphrase_is_asked_for_and_kept_nowhere(locked_key: Target, connect: Open, own_runtime: Path) -> None:
    asked: list[tuple[str, str]] = []

    def ask(kind: str, text: str) -> str:
        asked.append((kind, text))
        sockets = [p for p in (own_runtime / "dojang").iterdir() if p.is_socket()]
        assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in sockets) and sockets
        return "s3cret"

    link = connect(locked_key, ask)
    assert link.call("hello")["proto"] == 1
    assert [kind for kind, _ in asked] == ["passphrase"] and "locked" in asked[0][1]
    for path in own_runtime.rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes()
    me = psutil.Process()
    for each in [me, *me.children(recursive=True)]:
        assert "s3cret" not in " ".join(each.cmdline()) + str(each.environ())
    link.close()
    assert connect(locked_key, ask).call("hello")["proto"] == 1
    assert len(asked) == 1, "the connection that was opened is used again"
    ssh.log_out(locked_key)
    until(lambda: not ssh.logged_in(locked_key))


@pytest.mark.parametrize("answer", [None, "wrong"])
def test_without_the_answer_there_is_no_login(locked_key: Target, connect: Open, answer: str | None) -> None:
    link = connect(locked_key, lambda kind, text: answer)
    assert isinstance(refused(link), (NeedsInteraction, Denied)) and link.state.name == "down"


def test_nobody_is_asked_where_nobody_answers(locked_key: Target, connect: Open) -> None:
    assert isinstance(refused(connect(locked_key)), (Denied, NeedsInteraction))


def test_somebody_who_thinks_is_waited_for(sshd: Sshd, tmp_path: Path) -> None:
    def slowly(kind: str, text: str) -> str:
        time.sleep(3.5)
        return "yes"

    target = sshd.target(known="")
    pace = Pace(pauses=(30,), greeting=3.0)
    with Link(lambda: ssh.open(target, ask=slowly), root=str(tmp_path / "root"), pace=pace) as link:
        assert link.call("hello")["proto"] == 1
    ssh.log_out(target)


def test_nothing_is_written_on_the_terminal(sshd: Sshd, tmp_path: Path) -> None:
    """Not even by the ssh of a jump host, which knows nothing of our options."""
    import pty

    jump = sshd.target(known="")
    inner = sshd.target(more=f"Host inner\n  HostName 127.0.0.1\n  Port {sshd.port}\n  ProxyJump box")
    config = Path(inner.config)
    config.write_text(config.read_text().replace(str(known_file(inner)), str(known_file(jump))))
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from engine.servers import ssh
from engine.servers.link import Link
from engine.servers.link_errors import LinkError
said = []
for host in ("box", "inner"):
    target = ssh.Target(host, config={inner.config!r})
    with Link(lambda: ssh.open(target), root={str(tmp_path / "root")!r}) as link:
        try:
            link.call("hello")
        except LinkError as e:
            said.append(e.code)
open({str(tmp_path / "said")!r}, "w").write(" ".join(said))
"""
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", code])
    seen = b""
    try:
        while data := os.read(fd, 4096):
            seen += data
    except OSError:  # it has ended
        pass
    os.waitpid(pid, 0)
    os.close(fd)
    assert seen == b""
    assert (tmp_path / "said").read_text() == "HOST_KEY_UNKNOWN HOST_KEY_UNKNOWN"


def test_jump_hosts_work(sshd: Sshd, connect: Open) -> None:
    more = f"Host inner\n  HostName 127.0.0.1\n  Port {sshd.port}\n  ProxyJump box\n  IdentityFile {sshd.folder}/id\n"
    target = sshd.target()
    config = Path(target.config)
    config.write_text(f"{config.read_text()}{more}  UserKnownHostsFile {known_file(target)}\n")
    assert connect(Target("inner", config=str(config))).call("hello")["proto"] == 1


# By hand


def test_a_connection_opened_by_hand_is_used_and_survived(sshd: Sshd, connect: Open) -> None:
    target = sshd.target()
    assert not ssh.logged_in(target)
    subprocess.run(ssh.interactive_command(target), check=True, timeout=20, stdin=subprocess.DEVNULL)
    assert ssh.logged_in(target)
    assert "-f" in ssh.interactive_command(target) and "ask" in " ".join(ssh.interactive_command(target))
    logins = sshd.log().count("Accepted publickey")
    link = connect(target)
    link.call("hello")
    assert sshd.log().count("Accepted publickey") == logins
    check = [*ssh._ssh(target, ssh._control(target)), "-O", "check", "--", "box"]
    said = subprocess.run(check, capture_output=True, text=True).stderr
    os.kill(int(said.partition("pid=")[2].partition(")")[0]), signal.SIGKILL)
    until(lambda: link.state.name != "up")
    until(lambda: link.state.name == "up")  # past the socket that it left
    link.call("hello")
    ssh.log_out(target)


def test_the_persons_own_place_for_connections_is_kept(sshd: Sshd) -> None:
    own = sshd.target(more=f"  ControlPath {sshd.folder}/own-%C")
    assert any(w.startswith(f"ControlPath={sshd.folder}/own-") for w in ssh.command(own))
    assert any(w == f"ControlPath={askpass.runtime()}/%C" for w in ssh.command(sshd.target()))


# What ends and comes back


def test_a_killed_ssh_is_replaced(sshd: Sshd, connect: Open) -> None:
    link = connect(sshd.target())
    link.call("hello")
    for number in (signal.SIGKILL, signal.SIGSTOP):
        child = next(p for p in psutil.Process().children() if p.name() == "ssh")
        child.send_signal(number)
        until(lambda: link.state.name == "reconnecting")
        until(lambda: link.state.name == "up")
        assert link.call("hello")["proto"] == 1
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_server_that_was_away_is_found_again(tmp_path: Path, connect: Open) -> None:
    server = Sshd(Path(os.environ["XDG_RUNTIME_DIR"]) / "away").start()
    try:
        link = connect(server.target())
        link.call("hello")
        server.stop()
        until(lambda: link.state.name == "reconnecting" and isinstance(link.state.error, Unreachable))
        with pytest.raises(Unreachable):
            link.call("hello", timeout=0.3)
        server.start()
        assert link.call("hello", timeout=30)["proto"] == 1
    finally:
        server.stop()


def test_nobody_is_left_behind(sshd: Sshd, connect: Open, own_runtime: Path) -> None:
    before = {p.pid for p in sshd.sessions()}  # of other tests, about to end
    link = connect(sshd.target())
    link.call("hello")
    assert {p.pid for p in sshd.sessions()} - before
    link.close()
    until(lambda: not {p.pid for p in sshd.sessions()} - before)
    assert not [p for p in psutil.Process().children(recursive=True) if p.name() == "ssh"]
    assert not [p for p in (own_runtime / "dojang").iterdir() if p.is_socket()]


@pytest.mark.slow
def test_a_frozen_link_is_noticed_within_13_seconds(sshd: Sshd, tmp_path: Path) -> None:
    with Proxy(sshd.port) as proxy:
        target = sshd.target(proxy.port)
        with Link(lambda: ssh.open(target), root=str(tmp_path / "root")) as link:
            link.call("hello")
            began = time.monotonic()
            proxy.freeze()
            until(lambda: link.state.name == "reconnecting", 20)
            assert 4 < time.monotonic() - began < 14
            proxy.drop()
            proxy.thaw()
            until(lambda: link.state.name == "up")


@pytest.mark.slow
def test_eight_servers_are_looked_at_together(sshd: Sshd, tmp_path: Path) -> None:
    with Proxy(sshd.port, delay=0.02) as proxy:
        target = sshd.target(proxy.port)
        links = [Link(lambda: ssh.open(target), root=str(tmp_path / str(i))) for i in range(8)]
        try:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda link: link.call("hello"), links))
                began = time.monotonic()
                list(pool.map(lambda link: link.call("probe"), links))
                assert time.monotonic() - began < 1.0
        finally:
            for each in links:
                each.close()


# Shells and accounts

REQUIRED = ("sh", "bash", "dash", "zsh", "fish", "tcsh")
SHELLS = [
    s for s in (*REQUIRED, "csh", "mksh", "busybox") if shutil.which(s) or (s in REQUIRED and os.environ.get("CI"))
]  # in CI none of the first may be missing
START_FILES = (".bashrc", ".zshenv", ".tcshrc", ".cshrc", ".config/fish/config.fish")
NOISE = """
printf 'Welcome\\n\\033[2J\\000dojang agent\\n'
head -c 300000 /dev/zero | tr '\\000' x
echo complaint
stty erase x
alias python3 false
mesg n
"""


@pytest.fixture
def forced(own_runtime: Path) -> Iterator[Callable[[str], Target]]:
    """A target whose every login runs this shell script instead of a shell."""
    servers: list[Sshd] = []

    def start(script: str) -> Target:
        folder = own_runtime / f"s{len(servers)}"
        folder.mkdir()
        (folder / "shell").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "shell").chmod(0o755)
        servers.append(Sshd(folder, extra=f"ForceCommand {folder}/shell").start())
        return servers[-1].target()

    yield start
    for each in servers:
        each.stop()


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_understands_what_it_is_sent(shell: str, forced: Callable[[str], Target], connect: Open) -> None:
    """Past a start file that prints, on both outputs, and changes the settings of the shell."""
    name = "busybox sh" if shell == "busybox" else shell
    target = forced(f'printf "Welcome\\nline\\0\\033[2J"; echo noise >&2; exec {name} -c "$SSH_ORIGINAL_COMMAND"')
    link = connect(target)
    assert link.call("hello")["proto"] == 1
    assert link.call("run", argv=["printf", "%s", "a 'b' \"c\" $HOME `id` \\ ü"], on_part=lambda b: None)["code"] == 0


@pytest.mark.parametrize("shell", [s for s in SHELLS if s in REQUIRED])
def test_start_files_may_be_noisy_and_broken(
    shell: str, forced: Callable[[str], Target], own_runtime: Path, connect: Open
) -> None:
    """The shell reads the start file of the account, which prints a great deal, fails, and puts something before python3."""
    home = own_runtime / "home"
    for name in START_FILES:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(f"touch {own_runtime}/read\n{NOISE}")
    script = f'export HOME={home} XDG_CONFIG_HOME={home}/.config; unset SHLVL; exec {shell} -c "$SSH_ORIGINAL_COMMAND"'
    target = forced(script)
    assert connect(target).call("hello")["proto"] == 1
    assert (own_runtime / "read").exists() == (shell not in ("sh", "dash"))


def test_what_is_sent_to_a_shell_is_fixed_and_plain() -> None:
    assert not set(BOOT) & set("$`\\!\n\t*?~&|{}#")
    assert BOOT.count("'") == 2 and len(BOOT) < 400


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ('PATH=/nowhere exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"', NoPython, "python3"),
        ("echo This account is currently not available.; exit 1", NoBanner, "code 1"),
        ("exec cat", NoBanner, ""),
        ("echo hello; exit 0", NoBanner, "code 0"),
        ("exec yes", NoBanner, "more than a login may"),
        ("printf 'dojang: this python3 is 3.6, too old' >&2; exit 1", NoPython, "3.6"),
        ("kill -9 $$", LinkError, ""),
    ],
)
def test_an_account_that_cannot_be_used_says_why(
    script: str, kind: type[LinkError], words: str, forced: Callable[[str], Target], tmp_path: Path
) -> None:
    target = forced(script)
    with Link(lambda: ssh.open(target), root=str(tmp_path / "root"), name="box", pace=Pace(greeting=2.0)) as link:
        error = refused(link)
    assert isinstance(error, kind) and words in error.message and error.message.isprintable() and error.hint


# What ssh says


@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        (255, "ssh: Could not resolve hostname gpu1: Name or service not known", Unreachable),
        (255, "ssh: connect to host gpu1 port 22: Connection refused", Unreachable),
        (255, "ssh: connect to host gpu1 port 22: No route to host", Unreachable),
        (255, "ssh: connect to host gpu1 port 22: Connection timed out", Timeout),
        (255, "Connection timed out during banner exchange", Timeout),
        (255, "kex_exchange_identification: Connection closed by remote host", Unreachable),
        (255, "kex_exchange_identification: read: Connection reset by peer", Unreachable),
        (255, "me@gpu1: Permission denied (publickey).", Denied),
        (255, "me@gpu1: Permission denied (publickey,password).", NeedsInteraction),
        (255, "me@gpu1: Permission denied (keyboard-interactive).", NeedsInteraction),
        (255, "Received disconnect from 1.2.3.4 port 22:2: Too many authentication failures", Denied),
        (255, "mux_client_request_session: session request failed: Session open refused by peer", TooManySessions),
        (255, "/home/me/.ssh/config: line 3: Bad configuration option: foo", SshConfig),
        (255, "Bad owner or permissions on /home/me/.ssh/config", SshConfig),
        (255, "Unable to negotiate with 1.2.3.4 port 22: no matching host key type found.", SshConfig),
        (255, "@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", HostKeyChanged),
        (255, "No ED25519 host key is known for gpu1 and you have requested strict checking.\nHost key verification failed.", HostKeyUnknown),
        (127, "bash: line 1: exec: python3: not found", NoPython),
        (127, "", NoPython),
        (1, "fish: Unknown command: python3", NoPython),
        (1, "python3: Command not found.", NoPython),
        (255, "", Unreachable),
        (1, "", NoBanner),
        (None, "", LinkLost),
    ],
)  # fmt: skip
def test_what_ssh_says_is_understood(code: int | None, said: str, kind: type[LinkError]) -> None:
    error = ssh.classify(code, said, "opening")
    assert type(error) is kind and error.sentence and error.code
    assert type(ssh.classify(code, said, "up")) is LinkLost
    assert error.retry == (kind in (Unreachable, Timeout, TooManySessions, LinkLost))


def test_a_servers_words_do_nothing_to_a_terminal() -> None:
    error = ssh.classify(1, "\x1b]0;title\x07\x1b[2Jdanger\r\n" + "x" * 5000, "opening")
    assert error.message.isprintable() and len(error.message) < 600


def test_without_ssh_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, connect: Open) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    error = refused(connect(Target("gpu1")))
    assert isinstance(error, NoSsh) and "openssh-client" in error.hint


def test_bad_settings_are_said(sshd: Sshd, connect: Open) -> None:
    error = refused(connect(sshd.target(more="  Nonsense yes")))
    assert isinstance(error, SshConfig) and "terminating" in error.message


# Hostile names

HOSTILE = [
    "-oProxyCommand=touch {}", "-F/etc/passwd", "", " ", "a b", "a;touch {}", "$(touch {})", "`touch {}`", "a\ntouch {}", "a\0",
    "a'b", 'a"b', "a|b", "a&b", "a\x1b[2J", "x" * 300, "(touch {})", "a/../b", "a>{}",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_of_a_host_is_a_command(name: str, sshd: Sshd, tmp_path: Path) -> None:
    made = tmp_path / "made"
    name = name.replace("{}", str(made))
    with pytest.raises(SshConfig):
        Target(name)
    with pytest.raises(SshConfig):
        Target("box", user=name or "-")
    if not name or "\0" in name:
        return
    target = sshd.target()  # and were it let through, ssh is told that it is a host
    for line in (ssh.command(target), ssh.interactive_command(target)):
        at = line.index("--") + 1
        assert line[at] == "box"
        line[at] = name
        subprocess.run(line, capture_output=True, stdin=subprocess.DEVNULL, timeout=20, start_new_session=True)
    assert not made.exists()


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_is_a_port(port: int) -> None:
    with pytest.raises(SshConfig):
        Target("box", port=port)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gpu1", ("gpu1", "", None)), ("me@gpu1.example.org:2222", ("gpu1.example.org", "me", 2222)),
        ("[::1]:22", ("::1", "", 22)), ("fe80::1", ("fe80::1", "", None)), (" me@gpu1 ", ("gpu1", "me", None)),
        ("dom\\me@gpu1", ("gpu1", "dom\\me", None)),
    ],
)  # fmt: skip
def test_a_target_is_read_as_people_write_it(text: str, found: tuple[str, str, int | None]) -> None:
    target = Target.of(text)
    assert (target.host, target.user, target.port) == found


# Aliases


def test_aliases_are_offered_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "config").write_text(
        "# mine\nInclude conf.d/*\nInclude none/*\nHost gpu1 gpu2 *.example.org !bad\n  HostName = gpu.example.org\n\tUser me # not you\n"
        'Host "gpu 3" gpu4\nhost=gpu5\nMatch exec "touch never"\n  User other\nHost -oProxyCommand=x\nHost *\n  User everybody\n'
    )
    (tmp_path / "conf.d/lab").write_text("Host lab\n  User student\n  Include config\n  Include ../config\n")
    (tmp_path / "conf.d/raw").write_bytes(b"Host \xff\xfe\nHost raw\n")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    found = {a.name: (a.host, a.user) for a in ssh_config.aliases(tmp_path / "config")}
    assert (
        found["lab"] == ("", "student")
        and found["gpu1"] == ("gpu.example.org", "me")
        and "gpu5" in found
        and "raw" in found
    )
    assert not {"*", "*.example.org", "!bad", "gpu 3", "-oProxyCommand=x"} & set(found)
    assert found["gpu5"] == ("", "") and {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    assert ssh_config.aliases(tmp_path / "none") == [] == ssh_config.aliases(tmp_path)


def test_the_settings_that_ssh_would_use_are_read(sshd: Sshd) -> None:
    found = ssh.settings(sshd.target())
    assert found["hostname"] == "127.0.0.1" and found["port"] == str(sshd.port)
    with pytest.raises(SshConfig):
        ssh.settings(sshd.target(more="  Nonsense yes"))


# The folder for sockets


def test_the_folder_for_sockets_is_ours_alone(
    tmp_path: Path, own_runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = askpass.runtime()
    assert place == own_runtime / "dojang" and stat.S_IMODE(place.stat().st_mode) == 0o700
    place.chmod(0o777)
    assert stat.S_IMODE(askpass.runtime().stat().st_mode) == 0o700
    place.rmdir()
    (tmp_path / "elsewhere").mkdir()
    place.symlink_to(tmp_path / "elsewhere")
    assert askpass.runtime() == Path(f"/tmp/dojang-{os.getuid()}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp/" + "x" * 80)
    assert len(str(askpass.runtime())) + 41 <= askpass.LONGEST_SOCKET


def test_an_asker_hands_over_questions_and_answers(own_runtime: Path) -> None:
    asked: list[tuple[str, str]] = []
    answers = iter(["pässword $x '\"", None, ""])

    def ask(kind: str, text: str) -> str | None:
        asked.append((kind, text))
        return next(answers)

    asker = askpass.Asker(ask)
    try:
        env = {**os.environ, **asker.environment()}
        line = [env["SSH_ASKPASS"], "me@gpu1's password: "]
        runs = [subprocess.run(line, env=env, capture_output=True, timeout=20) for _ in range(3)]
    finally:
        asker.close()
    assert [(r.returncode, r.stdout.decode()) for r in runs] == [(0, "pässword $x '\"\n"), (1, ""), (0, "\n")]
    assert asked == [("password", "me@gpu1's password: ")] * 3
    assert subprocess.run(line, env=env, capture_output=True, timeout=20).returncode != 0
    until(lambda: not [t for t in threading.enumerate() if t.name == "askpass"])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Enter passphrase for key '/home/me/.ssh/id': ", "passphrase"),
        ("me@gpu1's password: ", "password"),
        ("Are you sure you want to continue connecting (yes/no/[fingerprint])? ", "host-key"),
        ("(me@gpu1) Verification code: ", "code"),
        ("Enter PIN for ED25519-SK key: ", "passphrase"),
    ],
)
def test_questions_are_told_apart(text: str, kind: str) -> None:
    assert askpass.kind_of(text) == kind
