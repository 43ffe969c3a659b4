"""A real SLURM cluster on loopback, in a folder of its own, for as long as a test needs it.

Several nodes on one host, as SLURM's ``slurmd -N`` allows; its own munge key and socket; no cgroups, no /etc. Daemons
run in the foreground as children of the test, so that the death of one is seen at once.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("munged", "munge", "slurmctld", "slurmd", "scontrol", "sbatch")
ACCOUNTING_PROGRAMS = ("slurmdbd", "sacctmgr", "mariadbd", "mariadb", "mariadb-install-db", "mariadb-admin")
DAEMONS = frozenset({"munged", "slurmctld", "slurmd", "slurmstepd", "slurmdbd", "mariadbd"})
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PORTS = range(12_000, 30_000)  # below those that outgoing connections take
_TRIES = 4


class SlurmCluster:
    """A cluster; used as a context manager, or by `start` and `stop`.

    Partitions: ``normal`` (the default, all nodes), ``short`` (at most 5 minutes and one node), ``closed`` (down).

    Parameters
    ----------
    folder : Path
        For everything it writes.
    nodes, cpus, memory_mib : int
        Nodes ``n1``, ``n2`` ... and what each claims to have.
    min_job_age : int
        Seconds until an ended job is forgotten.
    accounting : bool
        With slurmdbd and MariaDB: account ``proj1``, others are refused. Takes about 4 s more.
    extra_conf : str
        Further lines of slurm.conf; of a setting that comes twice, this one counts.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int = 4,
        cpus: int = 8,
        memory_mib: int = 6000,
        min_job_age: int = 300,
        accounting: bool = False,
        extra_conf: str = "",
    ) -> None:
        needed = PROGRAMS + (ACCOUNTING_PROGRAMS if accounting else ())
        missing = [program for program in needed if shutil.which(program, path=PATH) is None]
        if missing:
            pytest.skip(f"SLURM is not installed: {', '.join(missing)}")
        if os.geteuid() != 0:
            pytest.skip("a SLURM cluster of several nodes on one host needs root")
        self.folder = folder.resolve()
        self.nodes = tuple(f"n{number}" for number in range(1, nodes + 1))
        self.conf = self.folder / "etc" / "slurm.conf"
        self.env = {"PATH": PATH, "SLURM_CONF": str(self.conf), "HOME": str(self.folder), "LC_ALL": "C"}
        self._cpus, self._memory, self._age = cpus, memory_mib, min_job_age
        self._accounting, self._extra = accounting, extra_conf
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._sockets: Path | None = None

    def __enter__(self) -> SlurmCluster:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and wait until all nodes are idle; other ports are tried if one is taken."""
        for left in reversed(range(_TRIES)):
            try:
                self._start()
            except AssertionError:
                self.stop()
                if not left:
                    raise
            else:
                return

    def stop(self) -> None:
        """End what belongs to this cluster, jobs included, and nothing else; may be repeated."""
        deadline = time.monotonic() + 10
        while pids := self._belonging():
            assert time.monotonic() < deadline, f"cannot be ended: {pids}"
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for child in self._children.values():
                child.poll()
            time.sleep(0.02)
        for child in self._children.values():
            child.wait(5)
        self._children.clear()
        if self._sockets:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None

    def run(self, *argv: str, check: bool = True, timeout: float = 30) -> str:
        """Run a command on the cluster; gives what it prints."""
        done = subprocess.run(argv, env=self.env, text=True, capture_output=True, timeout=timeout, check=False)
        assert done.returncode == 0 or not check, f"{argv}: {done.stderr or done.stdout}"
        return done.stdout.strip()

    def start_controller(self) -> None:
        """Start the controller and wait until it answers."""
        self._spawn("slurmctld", "slurmctld", "-D")
        self._until(20, "the controller answers", lambda: "is UP" in self.run("scontrol", "ping", check=False))

    def stop_controller(self) -> None:
        """Stop the controller as an administrator would; it saves its state, in about 5 s."""
        self._end("slurmctld", signal.SIGTERM)

    def kill_controller(self) -> None:
        """Kill the controller; what it has not saved for up to 5 s is lost."""
        self._end("slurmctld", signal.SIGKILL)

    def pause_controller(self) -> None:
        """Let the controller hang."""
        self._children["slurmctld"].send_signal(signal.SIGSTOP)

    def resume_controller(self) -> None:
        """Let the controller go on."""
        self._children["slurmctld"].send_signal(signal.SIGCONT)

    def pause_munge(self) -> None:
        """Let munged hang; commands then hang as well."""
        self._children["munged"].send_signal(signal.SIGSTOP)

    def resume_munge(self) -> None:
        """Let munged go on."""
        self._children["munged"].send_signal(signal.SIGCONT)

    def down_node(self, name: str) -> None:
        """Declare a node down; its jobs fail, or are requeued if they allow it."""
        self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=test")

    def up_node(self, name: str) -> None:
        """Take a node into service again, if its daemon has not done so itself (``ReturnToService=2``)."""
        self.run("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        self._until(20, f"{name} is back", lambda: self._node(name) in ("idle", "mixed", "allocated"))

    def drain_node(self, name: str) -> None:
        """Let a node take no more jobs; `up_node` ends it."""
        self.run("scontrol", "update", f"nodename={name}", "state=drain", "reason=test")

    def kill_slurmd(self, name: str) -> None:
        """Kill a node's daemon; its jobs go on unseen."""
        self._end(f"slurmd-{name}", signal.SIGKILL)

    def start_slurmd(self, name: str) -> None:
        """Start a node's daemon."""
        self._spawn(f"slurmd-{name}", "slurmd", "-D", "-N", name)

    def wait_idle(self, timeout: float = 30) -> None:
        """Wait until no job is left and all nodes are idle."""
        self._until(timeout, "all nodes are idle", self._idle)

    def _idle(self) -> bool:
        states = self.run("sinfo", "-h", "-N", "-p", "normal", "-o", "%T", check=False).split()
        return states == ["idle"] * len(self.nodes) and not self.run("squeue", "-h", check=False)

    def _node(self, name: str) -> str:
        return self.run("sinfo", "-h", "-n", name, "-p", "normal", "-o", "%T", check=False)

    def _start(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("etc", "log", "run", "state", "munge", *(f"spool/{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True)
            (self.folder / name).chmod(0o755)
        self._sockets = Path(tempfile.mkdtemp(prefix="slurm-"))  # the name of a socket has at most 107 bytes
        self._sockets.chmod(0o755)
        ports = _free_ports(len(self.nodes) + 3)
        self._write("slurm.conf", self._slurm_conf(ports), 0o644)
        self._start_munge()
        if self._accounting:
            self._start_accounting(ports[1], ports[2])
        self._spawn("slurmctld", "slurmctld", "-D")
        for node in self.nodes:
            self.start_slurmd(node)
        self._until(20, "all nodes are idle", self._idle)

    def _start_munge(self) -> None:
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self._spawn(
            "munged",
            "munged",
            "-F",
            f"--key-file={key}",
            f"--socket={self._munge}",
            f"--pid-file={self.folder}/run/munged.pid",
            f"--seed-file={self.folder}/munge/seed",
        )
        self._until(10, "munged answers", lambda: bool(self.run("munge", "-n", "-S", self._munge, check=False)))

    def _start_accounting(self, sql_port: int, port: int) -> None:
        data, sql_socket = f"{self.folder}/db", f"{self._sockets}/sql"
        quick = ("--no-defaults", f"--datadir={data}", "--user=root")
        self.run("mariadb-install-db", *quick, "--auth-root-authentication-method=normal", "--skip-test-db", timeout=60)
        self._spawn(
            "mariadbd",
            "mariadbd",
            *quick,
            f"--socket={sql_socket}",
            f"--port={sql_port}",
            "--bind-address=127.0.0.1",
            f"--pid-file={self.folder}/run/mariadbd.pid",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-lock-wait-timeout=900",
        )
        client = ("--no-defaults", "-uroot", "-S", sql_socket)
        self._until(30, "the database answers", lambda: self._succeeds("mariadb-admin", *client, "ping"))
        users = "'slurm'@'localhost', 'slurm'@'127.0.0.1'"
        made = users.replace(",", " identified by 'slurm',") + " identified by 'slurm'"
        self.run("mariadb", *client, "-e", f"create user {made}; grant all on *.* to {users};")
        self._write("slurmdbd.conf", self._slurmdbd_conf(sql_port, port), 0o600)
        self._spawn("slurmdbd", "slurmdbd", "-D")
        self._until(30, "slurmdbd answers", lambda: self._succeeds("sacctmgr", "-n", "show", "cluster"))
        self.run("sacctmgr", "-i", "add", "cluster", "dev", check=False)
        self.run("sacctmgr", "-i", "add", "account", "proj1", "Cluster=dev")
        self.run("sacctmgr", "-i", "add", "user", "root", "Account=proj1", check=False)
        self.run("sacctmgr", "-i", "modify", "user", "root", "set", "DefaultAccount=proj1", check=False)

    def _slurm_conf(self, ports: list[int]) -> str:
        host, base = socket.gethostname().split(".")[0], self.folder
        half = ",".join(self.nodes[:2])
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
            f"CPUs={self._cpus} RealMemory={self._memory} State=UNKNOWN"
            for node, port in zip(self.nodes, ports[3:], strict=True)
        )
        accounting = (
            f"AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
            f"AccountingStoragePort={ports[2]}\nAccountingStoragePass={self._munge}\n"
            "AccountingStoreFlags=job_comment\nAccountingStorageEnforce=associations,limits"
            if self._accounting
            else "AccountingStorageType=accounting_storage/none"
        )
        return f"""\
ClusterName=dev
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={self._munge}
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmdPidFile={base}/run/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=2,default_queue_depth=1000,batch_sched_delay=1
MaxJobCount=20000
MinJobAge={self._age}
KillWait=5
InactiveLimit=0
SlurmctldTimeout=30
SlurmdTimeout=60
JobRequeue=1
PropagateResourceLimits=NONE
{accounting}
{nodes}
PartitionName=normal Nodes={",".join(self.nodes)} Default=YES MaxTime=INFINITE DefaultTime=60 DefMemPerCPU=100 State=UP
PartitionName=short Nodes={half} MaxTime=5 DefaultTime=1 MaxNodes=1 DefMemPerCPU=100 State=UP
PartitionName=closed Nodes={half} MaxTime=60 DefMemPerCPU=100 State=DOWN
{self._extra}
"""

    def _slurmdbd_conf(self, sql_port: int, port: int) -> str:
        return f"""\
AuthType=auth/munge
AuthInfo=socket={self._munge}
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
PidFile={self.folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
CommitDelay=1
"""

    @property
    def _munge(self) -> str:
        return f"{self._sockets}/munge"

    def _write(self, name: str, text: str, mode: int) -> None:
        path = self.folder / "etc" / name
        path.write_text(text)
        path.chmod(mode)

    def _spawn(self, key: str, *argv: str) -> None:
        with (self.folder / "log" / f"{key}.log").open("ab") as log:
            self._children[key] = subprocess.Popen(
                argv,
                env=self.env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _end(self, key: str, number: signal.Signals) -> None:
        child = self._children.pop(key)
        child.send_signal(number)
        child.wait(30)

    def _succeeds(self, *argv: str) -> bool:
        return subprocess.run(argv, env=self.env, capture_output=True, timeout=30, check=False).returncode == 0

    def _until(self, timeout: float, what: str, check: Callable[[], bool]) -> None:
        deadline = time.monotonic() + timeout
        while not check():
            for key, child in self._children.items():
                assert child.poll() is None, f"{key} ended with {child.returncode}: {self.log(key)[-2000:]}"
            assert time.monotonic() < deadline, f"not within {timeout} s: {what}; {self.log('slurmctld')[-2000:]}"
            time.sleep(0.05)

    def log(self, key: str) -> str:
        """Read a daemon's log: ``slurmctld``, ``slurmd-n1``, ``slurmdbd``, ``mariadbd`` or ``munged``."""
        path = self.folder / "log" / f"{key}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _belonging(self) -> set[int]:
        """Find the daemons of this cluster, its jobs' processes, and what these have started.

        They bear this cluster's configuration in their environment, also those of a test that was killed.
        """
        mark = f"SLURM_CONF={self.conf}".encode()
        parents: dict[int, int] = {}
        found: set[int] = set()
        for pid, parent, comm, environ in _processes():
            parents[pid] = parent
            of_job = any(item.startswith(b"SLURM_JOB_ID=") for item in environ)
            if mark in environ and pid != os.getpid() and (comm in DAEMONS or of_job):
                found.add(pid)
        more = found
        while more:
            more = {pid for pid, parent in parents.items() if parent in more} - found
            found |= more
        return found


def _processes() -> Iterator[tuple[int, int, str, list[bytes]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text(errors="replace")
                comm, rest = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
                if rest[0] != "Z":
                    yield int(entry.name), int(rest[1]), comm, (entry / "environ").read_bytes().split(b"\0")


def _free_ports(count: int) -> list[int]:
    """Find ports that are free now; SLURM's daemons bind all addresses and cannot take port 0."""
    found: list[int] = []
    for port in random.sample(_PORTS, 2000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("0.0.0.0", port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")
