"""A real Slurm of one node on loopback, run by whoever runs the tests, root or not: munged, slurmctld, slurmd.

Its two GPUs are links to /dev/null; it hands them out as it would real ones. Nothing outside of its folder is touched.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from engine.processes import end_with_parent
from tests.played import until
from tests.servers.sshd import free_port

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "sinfo", "scancel")
MISSING = "There is no Slurm: install it (apt-get install slurm-wlm munge), the tests of it need a real one."
GPUS = 2
CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/sock,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0,sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MinJobAge=300
KillWait=2
InactiveLimit=0
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000 Gres=gpu:fake:{gpus} State=UNKNOWN
PartitionName=gpu Nodes={host} Default=YES MaxTime=1-00:00:00 OverSubscribe=FORCE:8 State=UP
PartitionName=closed Nodes={host} State=DOWN
"""


class Slurm:
    """Up from `start` to `stop`. Who is to use it has `SLURM_CONF` in its environment."""

    def __init__(self, folder: Path) -> None:
        assert all(shutil.which(name, path=PATH) for name in NEEDED), MISSING
        self.folder, self.conf = folder, folder / "slurm.conf"
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("munge", "state", "spool"):
            (folder / name).mkdir(parents=True)
            (folder / name).chmod(0o755)
        folder.chmod(0o755)
        (folder / "munge" / "key").write_bytes(os.urandom(1024))
        (folder / "munge" / "key").chmod(0o400)
        host, self.user = os.uname().nodename.split(".")[0], pwd.getpwuid(os.getuid()).pw_name
        for i in range(GPUS):
            (folder / f"gpu{i}").symlink_to(os.devnull)
        told = {"host": host, "user": self.user, "folder": folder, "cores": os.cpu_count(), "gpus": GPUS}
        self.conf.write_text(CONFIG.format(**told, ports=(free_port(), free_port())))
        gres = f"NodeName={host} Name=gpu Type=fake File={folder}/gpu[0-{GPUS - 1}]\n"
        (folder / "gres.conf").write_text(gres)

    def start(self) -> Slurm:
        m = self.folder / "munge"
        self._run(
            "munged", "--foreground", "--force", f"--key-file={m}/key", f"--socket={m}/sock", f"--pid-file={m}/pid",
            f"--log-file={m}/log", f"--seed-file={m}/seed",
        )  # fmt: skip
        until((m / "sock").exists, 10)
        self.start_controller()
        self._run("slurmd", "-D", "-f", str(self.conf))
        until(lambda: self.asked("sinfo", "-h", "-p", "gpu", "-o", "%T").strip() in ("idle", "mixed"), 30)
        return self

    def start_controller(self) -> None:
        self._run("slurmctld", "-D", "-f", str(self.conf))
        until(lambda: "UP" in self.asked("scontrol", "ping"), 30)

    def stop_controller(self) -> None:
        """As if its machine were down."""
        self._end("slurmctld")

    def freeze(self, frozen: bool) -> None:
        """Its controller takes connections, and answers none."""
        self._children["slurmctld"].send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def _run(self, program: str, *words: str) -> None:
        path = shutil.which(program, path=PATH)
        assert path, MISSING
        with (self.folder / f"{program}.log").open("ab") as log:
            self._children[program] = subprocess.Popen(
                [path, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
                env={**os.environ, "SLURM_CONF": str(self.conf)}, preexec_fn=end_with_parent,
            )  # fmt: skip

    def _end(self, program: str) -> None:
        child = self._children.pop(program, None)
        if child is None:
            return
        with suppress(ProcessLookupError):
            child.send_signal(signal.SIGCONT)
            child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def stop(self) -> None:
        if "slurmctld" in self._children:
            self.clear()
        for program in ("slurmd", "slurmctld", "munged"):
            self._end(program)

    def asked(self, *words: str) -> str:
        """What one of its programs prints."""
        env = {**os.environ, "SLURM_CONF": str(self.conf)}
        return subprocess.run(words, env=env, capture_output=True, text=True, timeout=30, check=False).stdout

    def jobs(self, *states: str) -> list[tuple[int, str, str]]:
        """Number, name and state of each job; by default of those not over."""
        out = self.asked("squeue", "-h", *([f"--states={','.join(states)}"] if states else []), "-o", "%A|%j|%T")
        found = [line.split("|") for line in out.splitlines()]
        return [(int(number), name, state) for number, name, state in found]

    def clear(self) -> None:
        """End every job there is."""
        self.asked("scancel", "--full", "--signal=KILL", "-u", self.user)
        self.asked("scancel", "-u", self.user)
        end = time.monotonic() + 20
        while self.jobs() and time.monotonic() < end:
            time.sleep(0.05)

    def log(self) -> str:
        return "\n".join(p.read_text()[-2000:] for p in self.folder.glob("*.log"))
