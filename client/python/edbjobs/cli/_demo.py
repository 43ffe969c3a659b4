"""The command `demo`: a solve that continues while its service is killed and restarted."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.padding import Padding
from rich.text import Text

from edbjobs._client import Client
from edbjobs._endpoint import Endpoint
from edbjobs._exceptions import EdbJobsError
from edbjobs._models import Job, Outcome, WatchEvent
from edbjobs._text import age, event_text, state_text
from edbjobs.cli._daemon import address, start
from edbjobs.cli._jobs import EVIDENCE
from edbjobs.cli._output import COLORS, console, write_json

__all__ = ["run"]

KILL_AFTER_PASS = 2
SOLVE_SECONDS = {"patch_antenna": 7.0, "via_transition": 2.0}
TIMEOUT = 60.0
LOG_LINES = 4
_PASS = re.compile(r"\[CONVERGE\] Pass Number:\s*(\d+);\s*Solved Elements:\s*(\d+);\s*Max Mag\. Delta S:\s*([^;]+);")


@dataclass
class _Demo:
    """One run of the demonstration."""

    folder: Path
    quiet: bool
    step: int = 0
    endpoint: Endpoint | None = None
    process: subprocess.Popen[bytes] | None = None
    jobs: dict[str, Job] = field(default_factory=dict)
    events: list[WatchEvent] = field(default_factory=list)

    def print_text(self, text: str | Text, *, cut: bool = False) -> None:
        """Print an indented text; with `cut` on one line, which is truncated."""
        if not self.quiet:
            words = Text(text) if isinstance(text, str) else text
            words.no_wrap, words.overflow = cut, "ellipsis" if cut else "fold"
            console().print(Padding(words, (0, 0, 0, 3)))

    def heading(self, text: str) -> None:
        """Print the numbered heading of the next step."""
        self.step += 1
        if not self.quiet:
            console().print()
            console().print(Text(f"{self.step}. {text}", style="bold"))

    def start_service(self) -> Endpoint:
        """Start the service; the second time with the same folder and address."""
        settings = self.folder / "settings.toml"
        settings.touch()  # empty: the user's own settings must not apply to this service
        arguments = ["--config", str(settings), "--state-dir", str(self.folder / "state"), "--demo-solver"]
        # The second start needs the port of the first: port 0 would be another one.
        arguments += ["--grpc", self.endpoint.grpc if self.endpoint else "127.0.0.1:0"]
        arguments += ["--http", "", "--max-local-jobs", "1"]
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EDBJOBS_")}
        environment["EDBJOBS_RUNTIME_DIR"] = str(self.folder / "run")
        (self.folder / "run").mkdir(mode=0o700, exist_ok=True)
        self.endpoint, self.process = start(arguments, ready, self.folder / "serve.log", TIMEOUT, environment)
        return self.endpoint

    def kill_service(self) -> None:
        """Kill the service with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(TIMEOUT)

    def stop_service(self) -> None:
        """Stop the service as `edbjobs down` does."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(TIMEOUT)


def run(state_dir: Path | None, json: bool) -> bool:
    """Run the demonstration; return True if both jobs completed as expected."""
    with _folder(state_dir) as folder:
        demo = _Demo(folder, json)
        if not json:
            console().print(
                Text("edbjobs demo", style="bold")
                + ": the service with a demo solver, which imitates AEDT and solves nothing"
            )
        try:
            succeeded = _run_steps(demo)
        finally:
            demo.stop_service()
        if json:
            _write(demo, succeeded)
        else:
            _close(demo, succeeded, kept=state_dir is not None)
        return succeeded


@contextmanager
def _folder(state_dir: Path | None) -> Iterator[Path]:
    if state_dir is not None:
        state_dir.mkdir(parents=True, exist_ok=True)
        yield state_dir.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="edbjobs-demo-") as name:
        yield Path(name)


def _run_steps(demo: _Demo) -> bool:
    demo.heading("A service starts with its own folder.")
    endpoint = demo.start_service()
    demo.print_text(f"pid {endpoint.pid}, answers at {address(endpoint)}")
    with Client(address(endpoint), patience=TIMEOUT) as client:
        jobs = _submit(demo, client)
        try:
            _solve(demo, client, jobs[0])
            ended = [client.wait(job.uid, timeout=TIMEOUT) for job in jobs]
        except BaseException:
            _cancel(client, jobs)
            raise
        demo.jobs.update((job.uid, job) for job in ended)
        return _show_end(demo, client, ended)


def _submit(demo: _Demo, client: Client) -> list[Job]:
    from edbjobs_server.solver.demo.examples import example_project

    demo.heading("Two example projects are submitted; the limit is one running job.")
    jobs = []
    for name, seconds in SOLVE_SECONDS.items():
        project = example_project(demo.folder / "projects", name)
        environment = {"ANS_EDBJOBS_DEMO": f"seconds={seconds:g}"}
        jobs.append(client.submit(project, job_id=name, environment=environment))
    for job in jobs:
        now = client.get(job.uid)
        demo.print_text(f"{now.id:<16} {state_text(now)}")
    return jobs


def _solve(demo: _Demo, client: Client, job: Job) -> None:
    demo.heading(f"{job.id} is being solved.")
    killed = False
    rest = ""
    # One iterator for the whole solve: it resumes at its offset when the service is back.
    for text in client.logs(_running(client, job).uid, follow=True, text=True):
        *lines, rest = (rest + text).split("\n")
        for found in filter(None, map(_PASS.search, lines)):
            number = int(found[1])
            delta = "" if found[3].strip() == "N/A" else f"   delta S {found[3].strip()}"
            demo.print_text(f"pass {number:<3} {int(found[2]):>9,} elements{delta}")
            if number >= KILL_AFTER_PASS and not killed:
                killed = True
                _kill_and_restart(demo, client, job)


def _running(client: Client, job: Job) -> Job:
    # The log exists as soon as the job runs.
    for event in client.watch(from_oldest=True, jobs=[job.uid]):
        if event.job is not None and (event.job.start_time or event.job.ended):
            return event.job
    return job


def _kill_and_restart(demo: _Demo, client: Client, job: Job) -> None:
    before = client.get(job.uid)
    assert demo.endpoint is not None
    demo.heading("The service is killed during the solve (SIGKILL).")
    demo.kill_service()
    demo.print_text(f"pid {demo.endpoint.pid} has ended; the solver, pid {_pid(before)}, keeps running")
    demo.heading("The service is restarted with the same folder.")
    endpoint = demo.start_service()
    after = client.get(job.uid)
    demo.print_text(
        f"pid {endpoint.pid} found {job.id}: {after.state}, attempt {after.attempt_count}, pid {_pid(after)}"
    )


def _pid(job: Job) -> int | None:
    return job.attempts[-1].pid if job.attempts else None


def _show_end(demo: _Demo, client: Client, ended: list[Job]) -> bool:
    demo.heading("Both jobs have ended.")
    for job in ended:
        word = Text(str(job.state), style=COLORS.get(str(job.state), ""))
        outcome = job.outcome or Outcome()
        evidence = EVIDENCE.get(str(outcome.evidence), str(outcome.evidence))
        demo.print_text(
            Text.assemble(f"{job.id:<16} ", word, f" after {age(job.start_time, job.end_time)}, evidence: {evidence}:")
        )
        demo.print_text(f"   {outcome.message}")
    first = ended[0]
    demo.heading(f"The stored events of {first.id}.")
    for event in client.watch(from_oldest=True, jobs=[first.uid]):
        demo.events.append(event)
        demo.print_text(_event_line(event), cut=True)
        if event.job is not None and event.job.ended:
            break
    demo.heading("The last lines of its log.")
    tail = b"".join(client.logs(first.uid, offset=-4096)).decode("utf-8", "replace")
    for line in tail.strip().splitlines()[-LOG_LINES:]:
        demo.print_text(line, cut=True)
    return all(map(_as_expected, ended))


def _as_expected(job: Job) -> bool:
    proven = job.outcome is not None and job.outcome.evidence == "solver_log"
    return job.state == "completed" and proven and len(job.attempts) == 1


def _event_line(event: WatchEvent) -> str:
    when = f"{event.time.astimezone():%H:%M:%S}" if event.time else ""
    return f"{event.revision:>4}  {when}  {event_text(event)}"


def _cancel(client: Client, jobs: list[Job]) -> None:
    # The demonstration ends early: its solver must not keep running.
    for job in jobs:
        try:
            client.cancel(job.uid, grace_period=0)
            client.wait(job.uid, timeout=10)
        except EdbJobsError:
            continue  # the job has ended, or the service is unreachable


def _close(demo: _Demo, succeeded: bool, *, kept: bool) -> None:
    console().print()
    if succeeded:
        demo.print_text(
            "Each solver was started once, and its log proves its end. Nothing was really solved: no AEDT was used."
        )
    else:
        demo.print_text(Text("A job did not end as expected; see above.", style="red"))
    demo.print_text(f"All files are in {demo.folder}." if kept else "The folder was deleted; --state-dir DIR keeps it.")
    demo.print_text("Next: 'edbjobs up', then 'edbjobs submit PROJECT' ('edbjobs up --demo-solver' without an AEDT).")


def _write(demo: _Demo, succeeded: bool) -> None:
    events: list[dict[str, Any]] = [
        {"revision": event.revision, "type": event.job_change.type.value, "message": event.message}
        for event in demo.events
        if event.job_change is not None
    ]
    write_json(
        {"good": succeeded, "demo": True, "jobs": [job.to_dict() for job in demo.jobs.values()], "events": events}
    )
