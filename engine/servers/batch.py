"""Slurm as the agent uses it: a run is submitted as one job, found again, looked at, ended. Sent along with the agent.

Stdlib only, Python 3.8 and later. Every one of Slurm's programs has its time, since without its controller they hang.
What is known of a run's job lies in its folder:

    slurm.json     attempt, name and number of its job; the number is 0 from before sbatch until its answer is kept
    .batch.json    what the job runs; .batch.py and job.sh start it
    .job-ATTEMPT   a link that names the one job that may run this attempt, made by the job itself
    waiting.json   while it is pending: why, in words
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

TIMEOUT = 10.0  # s that Slurm may take to answer
SUBMITTING = 30.0
PATIENCE = 2.0  # s that whoever asks about a run waits for it
FRESH = 5.0  # s for which an answer about a job counts
RETRY = 10.0  # s after which one that did not answer is asked again
BEATS = 30.0  # s for which a heart's beat shows that a run lives, where its lock is not seen from here
SETTLING = 10.0  # s that a job just submitted may not be listed yet
PLACES = ("/usr/local/bin", "/opt/slurm/bin", "/usr/local/slurm/bin", "/cm/shared/apps/slurm/current/bin")
OPTION = re.compile(r"--[a-z][a-z0-9-]{1,40}(=[^\x00-\x1f\x7f]{0,300})?")
KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SBATCH_ACCOUNT")
COLUMNS = (("PartitionName", 80), ("StateLong", 40), ("Gres", 300), ("GresUsed", 300), ("Nodes", 12), ("Time", 30),
           ("Available", 12))  # fmt: skip
OURS = "dojang-"
AWAY = re.compile(
    "unable to contact|socket timed out|connection refused|zero bytes|temporarily un|authentication error|munge|"
    "configuration source|fetch_config|transport endpoint|communication|retrying",
    re.I,
)
PENDING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
THERE = frozenset({"RUNNING", "CONFIGURING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING", "STOPPED"})
ENDED = {
    "TIMEOUT": "Slurm ended it at its time limit, before it could save and be queued again.",
    "NODE_FAIL": "The node that it ran on failed.",
    "BOOT_FAIL": "The node that it was to run on did not start.",
    "OUT_OF_MEMORY": "Slurm ended it because it took more memory than it had asked for.",
    "PREEMPTED": "Another job took its place.",
    "DEADLINE": "Slurm ended it at its deadline.",
    "REVOKED": "Slurm took it back.",
}
WHY = {
    "Priority": "other jobs go first",
    "Resources": "no node has free what it needs",
    "Dependency": "an earlier job of it has not ended",
    "BeginTime": "Slurm lets it rest a while before it goes on",
    "JobHeldUser": "you hold it: scontrol release {id}",
    "JobHeldAdmin": "an administrator holds it",
    "PartitionTimeLimit": "its time limit is longer than the partition allows",
    "PartitionNodeLimit": "the partition does not allow what it asks for",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive",
    "ReqNodeNotAvail": "nodes that it needs are not available",
    "QOSMaxJobsPerUserLimit": "you run as many jobs as your QOS allows",
    "AssocMaxJobsLimit": "you run as many jobs as your account allows",
    "None": "Slurm has not looked at it yet",
}
SCRIPT = "#!/bin/sh\ntrap '' USR1 TERM\nexec {python} -I -X utf8 {run}/.batch.py {run} {attempt}\n"

# The first thing of a job. However often and whenever Slurm starts it, and however many there are of one attempt, only
# one goes on: it becomes the run's supervisor, and again so after Slurm has put it back into its queue.
BATCH = r"""
import fcntl, json, os, signal, socket, sys, time
run, attempt = sys.argv[1], int(sys.argv[2])
job = os.environ.get("SLURM_JOB_ID", "?")
os.umask(0o077)
os.chdir(run)
def read(name):
    try:
        with open(name, "rb") as f:
            found = json.load(f)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
def written(name, value):
    with open("." + name, "w") as f:
        json.dump(value, f)
        f.flush()
        os.fsync(f.fileno())
    os.replace("." + name, name)
def last():
    try:
        with open("events.jsonl", "rb") as f:
            size = f.seek(0, 2)
            f.seek(max(0, size - 65536))
            lines = f.read().split(b"\n")
    except OSError:
        return ""
    for line in reversed(lines):
        try:
            event = json.loads(line)
            if event["kind"] in ("start", "requeue", "end"):
                return event.get("state", "") if event["kind"] == "end" else ""
        except (ValueError, KeyError, TypeError):
            continue
    return ""
told = read(".batch.json")
if told.get("attempt") != attempt:
    os._exit(0)
try:
    os.symlink(job, ".job-%d" % attempt)
except FileExistsError:
    if os.readlink(".job-%d" % attempt) != job:
        os._exit(0)
lock = os.open("lock", os.O_RDWR | os.O_CREAT, 0o600)
for _ in range(3000):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except OSError:
        time.sleep(0.01)
else:
    sys.exit("Something else still holds the lock of this run.")
restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
if restarts and read("owner.json").get("attempt") == attempt:
    word = last()
    if word in ("done", "failed") or (word and read("exit.json").get("person")):
        os._exit(0)
try:
    os.ftruncate(lock, 0)
    os.write(lock, ("%d %.3f\n" % (os.getpid(), time.time())).encode())
except OSError:
    pass
start, boot = 0, ""
try:
    with open("/proc/self/stat", "rb") as f:
        start = int(f.read().rpartition(b")")[2].split()[19])
    with open("/proc/sys/kernel/random/boot_id") as f:
        boot = f.read().strip()
except (OSError, ValueError, IndexError):
    pass
written("owner.json", {"pid": os.getpid(), "start": start, "boot": boot, "host": socket.gethostname(),
                       "attempt": attempt, "job": job, "restarts": restarts})
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.set_inheritable(lock, True)
argv = [a.replace("{lock}", str(lock)) for a in told["argv"]]
try:
    os.chdir(told["cwd"])
    os.execvpe(argv[0], argv, dict(os.environ, **told["env"]))
except (OSError, ValueError) as e:
    reason = "%s could not be started: %s." % (argv[0], getattr(e, "strerror", None) or e)
    print(reason, file=sys.stderr, flush=True)
    os.chdir(run)
    written("exit.json", {"code": 127, "reason": reason, "ended": time.time(), "launched": False})
os._exit(127)
"""

if TYPE_CHECKING:
    Values = dict[str, Any]


class Trouble(Exception):
    """What keeps Slurm from doing it: NO_SLURM, SCHEDULER_DOWN (it may have been done), IMPOSSIBLE_REQUEST."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind, self.text = kind, text


class Job(NamedTuple):
    """A job as squeue lists it. `starts`: when it may, as Slurm writes times; `state` as Slurm calls it."""

    id: int
    state: str
    reason: str
    starts: str
    partition: str
    name: str


def ask(program: str, *words: str, limit: float = TIMEOUT) -> str:
    """What one of Slurm's programs prints. Raises Trouble."""
    path = found(program)
    if path is None:
        raise Trouble("NO_SLURM", f"there is no {program} on the PATH of logins without a terminal")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SSH_", "SLURM_", "SBATCH_", "SQUEUE_", "SINFO_"))}
    env.update({k: os.environ[k] for k in KEPT if k in os.environ}, SLURM_TIME_FORMAT="standard")
    pipe = subprocess.PIPE
    try:
        child = subprocess.Popen(
            [path, *words], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=env, cwd="/", start_new_session=True
        )
    except OSError as e:
        raise Trouble("NO_SLURM", f"{path}: {e.strerror or e}") from e
    try:
        out, err = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        with suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        raise Trouble("SCHEDULER_DOWN", f"{program} did not answer within {limit:g} s") from None
    if child.returncode:
        said = " ".join(err.decode("utf-8", "replace").replace(program + ": ", "").replace("error: ", "").split())
        away = AWAY.search(said) or program != "sbatch"
        raise Trouble("SCHEDULER_DOWN" if away else "IMPOSSIBLE_REQUEST", said[:600] or f"{program} failed")
    return out.decode("utf-8", "replace")


def options(value: Any) -> list[str]:
    """The options of sbatch that a request brought. Raises ValueError."""
    if not isinstance(value, list) or len(value) > 100:
        raise ValueError("the options for sbatch must be a list")
    for one in value:
        if not isinstance(one, str) or not OPTION.fullmatch(one):
            raise ValueError(f"{str(one)[:80]!r} is no option of sbatch")
    return value


class Queue:
    """What squeue says of our own jobs: asked at most once at a time, by whoever wants to know."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asking = False
        self._at = self._failed = float("-inf")
        self._found: list[Job] = []
        self._trouble = Trouble("SCHEDULER_DOWN", "Slurm does not answer")

    def jobs(self, fresh: float = FRESH, wait: float = PATIENCE) -> list[Job]:
        """Every job of ours, as of at most `fresh` seconds ago. Raises Trouble, after `wait` seconds at the latest."""
        end = time.monotonic() + wait
        oldest = time.monotonic() - fresh
        with self._changed:
            while self._at < oldest:
                now = time.monotonic()
                if not self._asking and now - self._failed < RETRY:
                    raise self._trouble
                if now >= end:
                    raise Trouble("SCHEDULER_DOWN", "Slurm does not answer")
                if not self._asking:
                    self._asking = True
                    threading.Thread(target=self._ask, daemon=True).start()
                self._changed.wait(end - now)
            return self._found

    def _ask(self) -> None:
        began, found, trouble = time.monotonic(), [], None
        try:
            out = ask("squeue", "-h", f"--user={os.getuid()}", "--states=all", "-o", "%A|%T|%r|%S|%P|%j")
            found = [job for job in map(job_of, out.splitlines()) if job]
        except Trouble as e:
            trouble = e
        with self._changed:
            self._asking = False
            if trouble is None:
                self._at, self._found = began, found
            else:
                self._failed, self._trouble = time.monotonic(), trouble
            self._changed.notify_all()

    def forget(self) -> None:
        """Something was changed: what was heard before does not count."""
        with self._changed:
            self._at = self._failed = float("-inf")


def job_of(line: str) -> Job | None:
    parts = line.split("|", 5)
    if len(parts) < 6 or not parts[0].isdigit() or not parts[5].startswith(OURS):
        return None
    return Job(int(parts[0]), parts[1], parts[2], parts[3], parts[4], parts[5])


def why(job: Job) -> str:
    """In words, why a job waits, and when Slurm thinks that it starts."""
    text = WHY.get(job.reason.partition(",")[0].strip("()"), f"Slurm says: {job.reason}").format(id=job.id)
    begins = ""
    with suppress(ValueError, OverflowError):
        at = time.strptime(job.starts, "%Y-%m-%dT%H:%M:%S")
        if time.mktime(at) > time.time():
            begins = ", perhaps until " + time.strftime("%b %d, %H:%M", at)
    return f"waits in Slurm's partition {job.partition}: {text}{begins}"


class Batch:
    """Runs as jobs. `root` is the agent's folder: how to write there, and its clock."""

    def __init__(self, root: Any) -> None:
        self.root, self.queue = root, Queue()

    def submit(self, run: str, told: Values, kept: Values) -> int:
        """Have sbatch take it: the job's number, kept in slurm.json. Raises Trouble; see there what that leaves open.

        `told`: argv, env and cwd of what it runs, its attempt, a Python of the node's, options and margin. `kept`:
        slurm.json, as it was kept before; its name is of this one submission, so that only its job is found by it.
        """
        for name, text in ((".batch.json", json.dumps(told)), (".batch.py", BATCH)):
            self.root.place(os.path.join(run, name), text.encode())
        words = {"python": quoted(told["python"]), "run": quoted(run), "attempt": told["attempt"]}
        script = os.path.join(run, "job.sh")
        self.root.place(script, SCRIPT.format(**words).encode(), 0o700)
        with suppress(OSError):
            os.unlink(os.path.join(run, "heartbeat"))
        log = os.path.join(run, "train.log").replace("%", "%%")
        out = ask(
            "sbatch", *told["options"], "--parsable", f"--job-name={kept['name']}", "--dependency=singleton", "--requeue",
            "--open-mode=append", "--nodes=1", "--ntasks=1", f"--signal=B:USR1@{told['margin']}", f"--output={log}",
            f"--chdir={run}", script, limit=SUBMITTING,
        )  # fmt: skip
        number = out.strip().partition(";")[0]
        self.queue.forget()
        if not number.isdigit():
            raise Trouble("SCHEDULER_DOWN", f"sbatch said {out[:80]!r}")
        self.keep(run, dict(kept, job=int(number)))
        return int(number)

    def keep(self, run: str, value: Values) -> None:
        self.root.place(os.path.join(run, "slurm.json"), json.dumps(value).encode())
        fd = os.open(run, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def find(self, run: str, told: Values, fresh: float = FRESH, wait: float = PATIENCE) -> Job | None:
        """Its job, by number or else by name, which is then kept; None if Slurm lists none. Raises Trouble."""
        found = self.queue.jobs(fresh, wait)
        if told.get("job"):
            return next((job for job in found if job.id == told["job"]), None)
        named = sorted(job for job in found if job.name == told.get("name"))
        if named:
            told["job"] = named[0].id
            self.keep(run, told)
        return named[0] if named else None

    def stand(
        self, run: str, told: Values, owner: Values, word: Callable[[], str],
        living: Callable[[], tuple[str, str] | None],
    ) -> tuple[str, str]:  # fmt: skip
        """State and reason of a run, from its own files first, then from Slurm. `told`: its slurm.json.

        `word()` is its last word, `living()` its state as far as its lock or its heart's beat shows that it lives.
        """
        begun = owner.get("attempt") == told.get("attempt")
        if begun and str(owner.get("job", "")).isdigit():
            told = dict(told, job=int(owner["job"]))
        last = word() if begun else ""
        if last in ("done", "failed"):
            return last, ""
        if begun and not last:
            lives = living()
            if lives:
                self._waits(run, None)
                return lives
        if told.get("over") and last != "requeue":
            return self._after(run, told["over"], begun, last)
        try:
            job = self.find(run, told, 1.0 if begun and last != "requeue" else FRESH)
            if job and job.state in PENDING and begun and not last:  # heard before it began
                job = self.find(run, told, 0.0)
        except Trouble as e:
            return self._unheard(told, begun, last, e)
        self._waits(run, job if job and job.state in PENDING else None)
        if job is None:
            return self._gone(run, told, begun, word)
        if job.state in PENDING:
            return "queued", why(job)
        if job.state == "SUSPENDED":
            return "silent", "Slurm has suspended it."
        if job.state in THERE:
            if last == "requeue":
                return "queued", "Slurm takes it back into its queue."
            if not begun or last or job.state == "COMPLETING":
                return ("running" if begun else "starting"), ""
            return "silent", "Slurm says that it runs, but nothing is heard of it."
        return self._over(run, told, begun, word, job.state)

    def _unheard(self, told: Values, begun: bool, last: str, trouble: Trouble) -> tuple[str, str]:
        """Slurm does not answer: nothing of the run has changed by that."""
        text = trouble.text[:1].upper() + trouble.text[1:] + "."
        if not told.get("job"):
            return "lost", f"Whether it was submitted is not known yet. {text}"
        if last in ("stopped", "paused"):
            return last, ""
        return ("running" if begun and last != "requeue" else "queued"), text

    def _waits(self, run: str, job: Job | None) -> None:
        """Keep waiting.json as it should be."""
        path = os.path.join(run, "waiting.json")
        if job is None:
            with suppress(OSError):
                os.unlink(path)
            return
        text = json.dumps({"id": "", "reason": why(job), "job": job.id}).encode()
        with suppress(OSError), open(path, "rb") as f:
            if f.read() == text:
                return
        with suppress(OSError):  # a full disk changes nothing of how it stands
            self.root.place(path, text)

    def _gone(self, run: str, told: Values, begun: bool, word: Any) -> tuple[str, str]:
        """Slurm lists it no longer, or not yet."""
        if not told.get("job"):
            return "lost", "It was never submitted."
        age = self.root.age(os.path.join(run, "slurm.json"))
        if not begun and age is not None and age < SETTLING:
            return "starting", ""
        try:
            out = ask("sacct", "-n", "-X", "-P", "-D", "-j", str(told["job"]), "-o", "State").split("\n")
        except Trouble:
            out = []
        states = [line.split()[0] for line in out if line.strip()]
        if states and states[-1] in PENDING | THERE:  # it lags
            states = []
        return self._over(run, told, begun, word, states[-1] if states else "gone")

    def _over(self, run: str, told: Values, begun: bool, word: Any, state: str) -> tuple[str, str]:
        """It has ended in Slurm, which is kept."""
        with suppress(OSError):
            self.keep(run, dict(told, over=state))
        return self._after(run, state, begun, word() if begun else "")

    def _after(self, run: str, state: str, begun: bool, last: str) -> tuple[str, str]:
        if last and last != "requeue":
            return last, ""
        if state.startswith("CANCELLED"):
            return "stopped", "It was cancelled in Slurm."
        try:
            with open(os.path.join(run, "exit.json"), "rb") as f:
                left = json.loads(f.read(1 << 20))
        except (OSError, ValueError):
            left = {}
        said = str(left.get("reason", ""))[:300] if isinstance(left, dict) else ""
        if said and left.get("launched") is False:
            return "failed", said
        if state in ENDED:
            return "lost", ENDED[state]
        if state == "gone":
            return "lost", said or "Slurm no longer knows its job, and it left no last word."
        if not begun:
            return "lost", f"Slurm began it and calls it {state}; see that its nodes see {run}."
        return "lost", said or f"Slurm says no more of it than “{state}”."

    def cancel(self, run: str, told: Values, force: bool) -> None:
        """End its job: asked to by signal, by force or while it is pending at once. Raises Trouble."""
        job = self.find(run, told, 0.0, TIMEOUT)
        if job is None:
            return
        gentle = not force and job.state not in PENDING
        ask("scancel", *(("--batch", "--signal=TERM") if gentle else ()), str(job.id))
        self.queue.forget()

    def look(self, names: list[str]) -> Values:
        """What sinfo says of partitions, in rows as `COLUMNS`, and how many jobs are pending in each. Raises Trouble."""
        waiting: Values = {}
        counting = threading.Thread(target=self._count, args=(names, waiting), daemon=True)
        counting.start()
        form = ",".join(f"{name}:{width}" for name, width in COLUMNS)
        out = ask("sinfo", "-h", "-p", ",".join(names), "-O", form)
        counting.join(TIMEOUT)
        return {"rows": [cut(line) for line in out.splitlines()], "waiting": waiting, "sbatch": bool(found("sbatch"))}

    def _count(self, names: list[str], into: Values) -> None:
        with suppress(Trouble):
            for name in ask("squeue", "-h", "-p", ",".join(names), "--states=PENDING", "-o", "%P").split():
                into[name] = into.get(name, 0) + 1


def found(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join(PLACES))


def cut(line: str) -> list[str]:
    """A line of sinfo by its columns."""
    parts, at = [], 0
    for _, width in COLUMNS:
        parts.append(line[at : at + width].strip())
        at += width
    return parts


def quoted(word: str) -> str:
    """For sh."""
    return "'" + word.replace("'", "'\\''") + "'"
