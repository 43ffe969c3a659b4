"""What the fakes of batch systems share: jobs in a folder, troubles, and a server that really runs the scripts.

A fake is a folder: ``bin`` has its commands, ``state`` its jobs and troubles. Commands are small programs that read
and change the state under a lock, and so does the server, a process that starts jobs, watches over their limits and
notes how they end.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Job = dict[str, Any]
TICK = 0.05
KILL_AFTER = 5.0  # seconds after TERM, as OpenPBS's least: a script must come to write its record on a busy machine


class Store:
    """The state of a fake, as its commands and its server see it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.config: Mapping[str, Any] = json.loads((self.state / "config.json").read_text())

    @contextlib.contextmanager
    def jobs(self) -> Iterator[dict[str, Job]]:
        """All jobs by number; what is changed in them is kept."""
        with (self.state / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            path = self.state / "jobs.json"
            before = path.read_text() if path.exists() else "{}"
            found = json.loads(before)
            yield found
            after = json.dumps(found)
            if after != before:
                new = path.with_suffix(".new")
                new.write_text(after)
                new.replace(path)

    def trouble(self, name: str) -> str:
        """Value of a trouble; empty: there is none."""
        try:
            return (self.state / "troubles" / name).read_text()
        except FileNotFoundError:
            return ""

    def affects(self, name: str, command: str) -> bool:
        """Whether a trouble befalls a command: its value names it, or is ``all``."""
        return bool({command, "all"} & set(self.trouble(name).split()))

    def note(self, command: str, argv: Sequence[str]) -> None:
        """Take down that a command is run, how, and in what surroundings."""
        line = {"time": time.time(), "argv": [command, *argv], "cwd": os.getcwd(), "env": dict(os.environ)}
        with (self.state / "calls").open("ab", buffering=0) as file:  # in one piece: commands run side by side
            file.write(json.dumps(line).encode() + b"\n")

    def add(self, job: Job, script: str) -> str:
        """Take a job; gives its number."""
        with self.jobs() as jobs:
            number = str(max([int(self.config["first"]) - 1, *map(int, jobs)]) + 1)
            folder = self.state / "scripts"
            folder.mkdir(exist_ok=True)
            (folder / number).write_text(script)
            held = bool(self.trouble("hold")) or job.get("hold")
            jobs[number] = {**job, "number": number, "state": "held" if held else "queued", "submit": time.time()}
        return number


class Refusal(Exception):
    """A command's exit code, and its words on stderr."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def user() -> str:
    """Who runs this."""
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def delay(store: Store, command: str) -> None:
    """Be slow, or never answer."""
    if store.affects("hang", command):
        time.sleep(3600)
    if slow := store.trouble("slow"):
        time.sleep(float(slow))


class Server:
    """Runs the jobs of a store. `begin` gives argv, environment, folder and output of a job."""

    def __init__(self, store: Store, kind: Any) -> None:
        self.store = store
        self.kind = kind
        self.children: dict[str, Any] = {}

    def run(self) -> None:
        """Until TERM."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            while True:
                with self.store.jobs() as jobs:
                    for number in list(jobs):
                        self.step(jobs, number)
                time.sleep(TICK)
        finally:
            for child in self.children.values():
                _end(child.pid, signal.SIGKILL)
                child.wait()

    def step(self, jobs: dict[str, Job], number: str) -> None:
        job = jobs[number]
        if job["state"] in ("held", "queued"):
            self.wait(jobs, job)
        elif job["state"] in ("running", "ending"):
            self.watch(job)
        elif self.store.trouble("purge"):
            del jobs[number]

    def wait(self, jobs: Mapping[str, Job], job: Job) -> None:
        if job.get("delete"):
            job.update(state="ended", end=time.time(), why="deleted")
            return
        if job["state"] == "held":
            if not self.store.trouble("hold") and not job.get("hold"):
                job["state"] = "queued"
            return
        taken = sum(other["cores"] for other in jobs.values() if other["state"] in ("running", "ending"))
        total = sum(self.store.config["nodes"].values())
        job["reason"] = ""
        if job["cores"] > total or self.store.trouble("never"):
            job["reason"] = "never"
        elif self.store.trouble("stopped") or job.get("stopped"):
            job["reason"] = "stopped"
        elif job["cores"] > total - taken:
            job["reason"] = "full"
        elif time.time() >= job.get("begin", 0):
            self.start(job)

    def start(self, job: Job) -> None:
        import subprocess

        job["hosts"] = self.place(job)
        argv, env, cwd, output = self.kind.begin(self.store, job)
        try:
            stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError:
            stream = os.open(os.devnull, os.O_WRONLY)
        try:
            child = subprocess.Popen(
                argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
            )
        finally:
            os.close(stream)
        self.children[job["number"]] = child
        job.update(state="running", start=time.time(), pid=child.pid)

    def place(self, job: Job) -> list[list[Any]]:
        """Give hosts with their cores: the first ones there are, so that jobs may share them."""
        names = list(self.store.config["nodes"])
        count = min(int(job.get("nodes", 1)), len(names))
        return [[name, job["cores"] // count] for name in names[:count]]

    def watch(self, job: Job) -> None:
        child = self.children.get(job["number"])
        now = time.time()
        if job["state"] == "running":
            code = child.poll() if child is not None else -9
            if code is not None:
                if child is not None:
                    _end(child.pid, signal.SIGKILL)  # nothing of a job outlives it
                job.update(state="ending", code=code, end=now)
            elif self.store.trouble("lost"):
                _end(job["pid"], signal.SIGKILL)
                job["why"] = "lost"
            elif job["number"] in self.store.trouble("requeue").split():
                self.put_back(job)
            else:
                self.limit(job, now)
        if job["state"] == "ending" and now - job["end"] >= float(self.store.trouble("ending") or 0):
            job["state"] = "ended"
            self.kind.finish(self.store, job)

    def put_back(self, job: Job) -> None:
        _end(job["pid"], signal.SIGKILL)
        self.children.pop(job["number"]).wait()
        for name in ("start", "hosts", "pid"):
            del job[name]
        job.update(state="queued", begin=time.time() + 600)  # so that it does not begin again at once

    def limit(self, job: Job, now: float) -> None:
        if "why" not in job:
            if job.get("delete") == "force" or (job.get("delete") and not self.store.trouble("deaf")):
                job["why"] = "deleted"
            elif job.get("limit") and now - job["start"] >= job["limit"]:
                job["why"] = "limit"
            elif self.store.trouble("memory"):
                job["why"] = "memory"
            else:
                return
            job["term"] = now
            sent = signal.SIGKILL if job["why"] == "memory" or job.get("delete") == "force" else signal.SIGTERM
            _end(job["pid"], sent)
        elif now - job["term"] >= KILL_AFTER:
            _end(job["pid"], signal.SIGKILL)


def _end(session: int, number: int) -> None:
    """Signal all processes of a job's session, as MoM does."""
    for pid in _pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == session:
                os.kill(pid, number)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


class FakeBatch:
    """A batch system of its own.

    Parameters
    ----------
    folder : Path
        Empty folder for it.
    nodes : mapping of str to int, optional
        Its hosts and their cores; absent: this host with four.

    Attributes
    ----------
    env : dict
        Environment in which its commands are found.
    """

    module = ""
    commands: Sequence[str] = ()
    first = 1

    def __init__(self, folder: Path, nodes: Mapping[str, int] | None = None) -> None:
        import socket
        import subprocess

        self.root = folder
        state = folder / "state"
        (state / "troubles").mkdir(parents=True)
        (folder / "home").mkdir()
        (folder / "bin").mkdir()
        config = {"nodes": dict(nodes or {socket.gethostname(): 4}), "first": self.first}
        (state / "config.json").write_text(json.dumps(config))
        tests = str(Path(__file__).resolve().parents[1])
        for name in (*self.commands, "serve"):
            path = folder / "bin" / name
            path.write_text(
                f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {tests!r})\n"
                f"from support.{self.module} import main\nsys.exit(main({name!r}, {str(folder)!r}, sys.argv[1:]))\n"
            )
            path.chmod(0o755)
        self.env = {**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        self._server = subprocess.Popen([str(folder / "bin" / "serve")], stdin=subprocess.DEVNULL)

    def trouble(self, name: str, value: str | None = "all") -> None:
        """Begin a trouble, or end it with None."""
        path = self.root / "state" / "troubles" / name
        if value is None:
            path.unlink(missing_ok=True)
        else:
            new = path.with_name(f".{name}")
            new.write_text(value)
            new.replace(path)

    @contextlib.contextmanager
    def troubled(self, name: str, value: str = "all") -> Iterator[None]:
        """Be in a trouble for a while."""
        self.trouble(name, value)
        try:
            yield
        finally:
            self.trouble(name, None)

    def calls(self, *words: str) -> list[dict[str, Any]]:
        """Return the commands that were run and start with these words: when, how, where, and with what environment."""
        path = self.root / "state" / "calls"
        text = path.read_text() if path.exists() else ""
        found = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]  # one may be being written
        return [call for call in found if call["argv"][: len(words)] == list(words)]

    def command(self, *argv: str) -> str:
        """Run one of its commands as a person would; gives what it prints."""
        import subprocess

        argv = (str(self.root / "bin" / argv[0]), *argv[1:])
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout

    def jobs(self) -> dict[str, Job]:
        """What it knows of its jobs, by number."""
        with Store(self.root).jobs() as jobs:
            return jobs

    def stop(self) -> None:
        """End it with its jobs."""
        self._server.terminate()
        try:
            self._server.wait(60)
        except Exception:
            self._server.kill()
            self._server.wait()
            raise
        finally:
            for job in self.jobs().values():
                if job["state"] in ("running", "ending"):
                    _end(job["pid"], signal.SIGKILL)
