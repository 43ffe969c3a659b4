"""The kinds of faults. Each leaves the service running."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edbjobs.v1 import job_pb2, jobs_messages_pb2
from edbjobs_server.executors.local import record
from edbjobs_server.executors.local.linux import processes
from edbjobs_server.util import failpoints
from faults.campaign.round import Round, comes

Fault = Callable[[Round], None]
SERVICE_POINTS = (
    "submit.before_reply",
    "run.before_reserve",
    "run.after_reserve",
    "run.after_start",
    "run.before_end",
    "run.after_end",
    "store.before_commit",
    "store.after_commit",
)
RUN_POINTS = (
    "launcher.before_fork",
    "supervisor.before_claim",
    "supervisor.after_claim",
    "supervisor.after_start_line",
    "supervisor.after_go",
    "supervisor.before_end",
    "supervisor.after_end",
)
CLOCK_STEPS = (-86400, -3600, 0, 3600, 86400)
REACH_SECONDS = 15.0  # so long a named point is waited for


def kill_service(at: Round) -> None:
    """F1: kill -9 of the service at any moment."""
    at.sight()
    with at.away():
        at.service.kill()
        at.up()


def kill_service_at_point(at: Round) -> None:
    """F2: the service dies at a named point, then comes back without."""
    at.sight()
    with at.away():
        at.service.kill()
        at.service.environment[failpoints.VARIABLE] = f"{at.dice.choice(SERVICE_POINTS)}:{at.dice.randrange(1, 6)}"
        process = at.service.launch()
        comes(lambda: process.poll() is not None, REACH_SECONDS)  # where it is not reached this is F1 again
        at.service.kill()
        del at.service.environment[failpoints.VARIABLE]
        at.up()


def kill_runs_at_point(at: Round) -> None:
    """F2: the launcher, or every new supervisor, dies at a named point for a while."""
    at.sight()
    seen = set(at.watcher.latest)
    with at.away():
        at.service.kill()
        at.service.environment[failpoints.VARIABLE] = at.dice.choice(RUN_POINTS)
        at.up()
        comes(lambda: len(_started(at)) > len(seen), 3.0)
        at.service.kill()
        del at.service.environment[failpoints.VARIABLE]
        at.up()
    # A job that has started in between may have lost its supervisor. The service is asked: the watcher may be behind.
    jobs = at.service.jobs.ListJobs(jobs_messages_pb2.ListJobsRequest(page_size=1000, view=job_pb2.JOB_VIEW_FULL)).jobs
    at.evidence.killed.update(job.uid for job in jobs if job.attempts)


def _started(at: Round) -> set[str]:
    return {uid for uid, job in list(at.watcher.latest.items()) if job.attempt_count}


def kill_processes(at: Round) -> None:
    """F3: kill -9 of a run's supervisor, its solver, or all of it."""
    job = at.dice.choice(at.running() or [job_pb2.Job()])
    if not job.uid:
        return
    at.evidence.killed.add(job.uid)
    supervisor, others = at.processes_of(job)
    whom = at.dice.choice(["supervisor", "solver", "all"])
    chosen = others if whom == "solver" else []
    if whom != "solver" and supervisor is not None:
        chosen = [supervisor] + (others if whom == "all" else [])
    processes.kill(chosen)
    if whom != "solver" and supervisor is not None:
        at.evidence.killed |= at.runs_of(supervisor)


def drain(at: Round) -> None:
    """F4: SIGTERM, and a new service afterwards."""
    at.sight()
    with at.away():
        code = at.service.stop()
        assert code == 0, at.service.output()
        at.up()


def freeze(at: Round) -> None:
    """F5: the service is stopped for a while and goes on."""
    assert at.service.process is not None
    at.sight()
    with at.away():
        at.service.process.send_signal(signal.SIGSTOP)
        time.sleep(at.dice.uniform(0.3, 2.0))  # the fault itself
        at.service.process.send_signal(signal.SIGCONT)


def step_clock(at: Round) -> None:
    """F8: the service's clock is set forwards or back; what its supervisors write bears the true time."""
    at.sight()
    at.set_clock(at.dice.choice(CLOCK_STEPS))
    if at.dice.random() < 0.5:
        kill_service(at)


def reboot(at: Round) -> None:
    """F12: the host was started again: all is gone, and the recorded pids belong to strangers by now."""
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        with at.away():
            at.service.kill()
            for run in _open_runs(at):
                _end_run(at, run, stranger.pid)
            if at.dice.random() < 0.5:
                _edit_boot(at.service.state_dir / "store.db")
            at.up()
        if stranger.poll() is not None:
            at.evidence.harmed.append(f"a process that was none of its own was killed: {stranger.returncode}")
    finally:
        stranger.kill()
        stranger.wait()


def _open_runs(at: Round) -> list[Path]:
    runs = at.service.state_dir / "runs"
    return [path.parent for path in runs.glob(f"*/*/{record.NAME}") if record.read(str(path.parent)).end is None]


def _end_run(at: Round, folder: Path, stranger: int) -> None:
    """Kill all of a run, and have its record name another boot, or a pid that is another's now."""
    found = record.read(str(folder))
    if found.claim is None or found.void:
        return
    at.evidence.killed.add(found.claim["uid"])
    supervisor = None if found.end else processes.look(found.claim["pid"])
    if supervisor is not None and supervisor.ticks == found.claim["ticks"]:
        processes.kill([supervisor])
        at.evidence.killed |= at.runs_of(supervisor)
    solver = (found.start["pid"], found.start["ticks"]) if found.start else None
    mark = f"{found.claim['uid']}.{found.claim['attempt']}"
    assert comes(lambda: not _killed_all(mark, solver)), f"{mark} cannot be ended"
    if record.read(str(folder)).end is not None:
        return
    changes: list[dict[str, object]] = [{"boot": "another-boot"}, {"pid": stranger}]
    change = at.dice.choice(changes)
    file = folder / record.NAME
    lines = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
    for line in lines:
        line.update({name: value for name, value in change.items() if name in line})
    file.write_text("".join(f"\n{json.dumps(line)}\n" for line in lines))


def _killed_all(mark: str, solver: tuple[int, int] | None) -> list[processes.Process]:
    left = processes.of_run(mark, solver, processes.table())
    processes.kill(left)
    return left


def _edit_boot(store: Path) -> None:
    with sqlite3.connect(store) as connection:
        here = processes.boot_id()
        connection.execute("UPDATE jobs SET boot_ids = replace(boot_ids, ?, 'another-boot') WHERE state < 5", (here,))
    connection.close()


KINDS: dict[str, tuple[int, Fault]] = {
    "F1 service killed": (6, kill_service),
    "F2 service killed at a point": (5, kill_service_at_point),
    "F2 runs killed at a point": (2, kill_runs_at_point),
    "F3 processes of a run killed": (4, kill_processes),
    "F4 drain": (2, drain),
    "F5 service stopped and continued": (1, freeze),
    "F12 reboot": (1, reboot),
}


def draw(at: Round, number: int) -> Iterator[tuple[str, Fault]]:
    """Draw faults by weight."""
    names = list(KINDS)
    weights = [KINDS[name][0] for name in names]
    for name in at.dice.choices(names, weights, k=number):
        yield name, KINDS[name][1]


def clock_steps(number: int) -> Iterator[tuple[str, Fault]]:
    """Give faults of a round with a clock of its own."""
    for _ in range(number):
        yield "F8 clock step", step_clock
