"""Makes a new store from the records of the runs, when the old one is lost.

A run's record has what the claim copied of its job, and the state of the run. Jobs that never ran left no
record: they are lost and have to be submitted again. An open run stays open, so that the service takes it over.

Records may say anything: what makes no job that the store can hold and give back is left out, by name, and nothing
else is.
"""

from __future__ import annotations

import ntpath
import posixpath
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edbjobs.config import total_cores
from edbjobs.v1 import job_config_pb2
from google.protobuf.message import DecodeError

from edbjobs_server.contract.accepted import accepted_config
from edbjobs_server.contract.codec import basic_bytes, spec_from_config, stored_seconds, summary_of
from edbjobs_server.core.job import LOCAL, Attempt, Job, Outcome, Spec
from edbjobs_server.core.runs import Ending
from edbjobs_server.core.states import EventType, Evidence, Reason, State
from edbjobs_server.executors.local import record
from edbjobs_server.store import state_folder
from edbjobs_server.store.database import FILE, open_checked, put_aside
from edbjobs_server.store.errors import StoreError
from edbjobs_server.store.queries import QUERIES
from edbjobs_server.store.rows import INTERNALS_AT, job_of, row_of
from edbjobs_server.store.store import LOCK_FILE
from edbjobs_server.store.transaction import Transaction
from edbjobs_server.store.writer_state import read_state

_FOLDER = re.compile(r"([0-9]{1,19})\.([0-9]{1,9})")
_LARGEST_SEQ = 2**62  # numbers beyond it would leave none for new jobs
_LATEST_SECONDS = 253_402_300_799  # the end of the year 9999
_SUFFIXES = frozenset({".aedb", ".aedt", ".aedtz"})
_NONSENSE = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, DecodeError)
_UNJUDGED = "rebuilt from the record of its run: its log was not judged again"
_NEWER = "rebuilt from the record of an earlier run: that of its last run is damaged, and how it ended is not known"
_NEVER_RAN = "rebuilt from the record of its run: it never ran; submit it again if it is still needed"
_REASONS = {
    Ending.EXITED: Reason.EXIT_CODE,
    Ending.SIGNALLED: Reason.SIGNAL,
    Ending.CANCELLED: Reason.CANCELLED,
    Ending.TIMEOUT: Reason.TIMEOUT,
    Ending.START_FAILED: Reason.START_FAILED,
    Ending.NEVER_RAN: Reason.LOST,
    Ending.LOST: Reason.LOST,
}
_EVIDENCE = {
    Ending.CANCELLED: Evidence.SERVICE,
    Ending.TIMEOUT: Evidence.SERVICE,
    Ending.START_FAILED: Evidence.SERVICE,
    Ending.NEVER_RAN: Evidence.NONE,
    Ending.LOST: Evidence.NONE,
}
_NOT_STARTED = Outcome(Reason.NOT_STARTED, Evidence.SERVICE)
_EVENTS = {
    State.QUEUED: EventType.JOB_QUEUED,
    State.RUNNING: EventType.JOB_STARTED,
    State.COMPLETED: EventType.JOB_COMPLETED,
    State.FAILED: EventType.JOB_FAILED,
    State.CANCELLED: EventType.JOB_CANCELLED,
}


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What became of a rebuild.

    Attributes
    ----------
    jobs : int
        Jobs in the new store.
    live : int
        Those among them whose run has not ended on record; the service takes them over when it starts.
    damaged : tuple of str
        Run folders that are in no job of the new store: their record has too little, or contradicts others.
    kept : str
        Name the old store was kept under; empty: there was none.
    note : str
        What is in no record.
    """

    jobs: int
    live: int
    damaged: tuple[str, ...]
    kept: str
    note: str = "jobs that never ran left no record and are lost: submit them again"


@dataclass(frozen=True, slots=True)
class _Run:
    folder: Path
    seq: int
    attempt: int
    record: record.Record

    @property
    def claim(self) -> Mapping[str, Any]:
        return self.record.claim or {}


def rebuild(state_dir: Path, runs_root: Path) -> RebuildReport:
    """Make a new store of the runs' records; the old one is kept under another name.

    Parameters
    ----------
    state_dir : Path
        Folder of the store; no service may use it.
    runs_root : Path
        Folder with the run folders.

    Raises
    ------
    StoreError
        If a service uses the folder, or it cannot be written. Nothing is changed then.
    """
    state_folder.prepare(state_dir)
    lock = state_folder.Lock(state_dir / LOCK_FILE)
    draft = state_dir / "rebuilt.db"
    try:
        _remove(draft)
        runs = sorted(_runs(runs_root), key=lambda run: (run.seq, run.attempt))
        jobs, damaged = _jobs_of(runs)
        _write(draft, jobs, max((run.seq for run in runs), default=0))
        path = state_dir / FILE
        kept = str(put_aside(path)) if path.exists() else ""
        draft.rename(path)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"the store in {state_dir} cannot be rebuilt from {runs_root} ({error})") from error
    finally:
        lock.release()
    live = sum(not job.state.terminal for job in jobs)
    return RebuildReport(len(jobs), live, tuple(map(str, damaged)), kept)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _runs(root: Path) -> Iterator[_Run]:
    for path in root.glob("*/*.*"):
        name = _FOLDER.fullmatch(path.name)
        if name is None or int(name[1]) >= _LARGEST_SEQ:
            continue
        try:
            found = record.read(str(path))
        except OSError:  # a folder in its place, or not to be read
            found = record.Record(exists=True)
        yield _Run(path, int(name[1]), int(name[2]), found)


def _jobs_of(runs: Iterable[_Run]) -> tuple[list[Job], list[Path]]:
    """Make the jobs, in order of seq, and return the folders that are in none of them."""
    by_seq: dict[int, dict[int, _Run]] = {}
    newest: dict[int, int] = {}
    damaged: list[Path] = []
    for run in runs:
        newest[run.seq] = max(run.attempt, newest.get(run.seq, 0))
        attempts = by_seq.setdefault(run.seq, {})
        if run.attempt not in attempts and _is_whole(run):
            attempts[run.attempt] = run
        else:
            damaged.append(run.folder)
    jobs: list[Job] = []
    uids: set[str] = set()
    for seq, of_job in by_seq.items():
        job = _job_of([*of_job.values()])
        if job is not None and job.state.terminal and job.attempt_count < newest[seq]:
            assert job.outcome is not None, "it has ended"
            job = replace(job, outcome=replace(job.outcome, evidence=Evidence.NONE, message=_NEWER))
        if job is None or job.uid in uids:
            damaged += [run.folder for run in of_job.values()]
        else:
            uids.add(job.uid)
            jobs.append(job)
    return _superseded(_without_repeated_requests(jobs)), damaged


def _superseded(jobs: list[Job]) -> list[Job]:
    """Mark the ended jobs that others retry."""
    retries = {job.retry_of: job.uid for job in jobs if job.retry_of}
    return [
        replace(job, superseded_by=retries[job.uid]) if job.state.terminal and job.uid in retries else job
        for job in jobs
    ]


def _without_repeated_requests(jobs: list[Job]) -> list[Job]:
    """Let a request id stand for the newest job it made: after a week it may be used again."""
    newest = {(job.requested_by, job.request_id): job.uid for job in jobs}
    return [job if newest[job.requested_by, job.request_id] == job.uid else replace(job, request_id="") for job in jobs]


def _is_whole(run: _Run) -> bool:
    """Return whether a record is that of its folder, and makes an attempt that the store can hold in any job."""
    claim = run.claim
    if not claim or (claim["seq"], claim["attempt"]) != (run.seq, run.attempt):
        return False
    try:
        spec = Spec(project_path="/", project_key="/")
        attempts = (_attempt_of(run),)
        job = Job(uid=claim["uid"], seq=run.seq, id="any", spec=spec, create_time=0.0, attempts=attempts)
        return _can_be_kept(_standing(job, run.record))
    except _NONSENSE:
        return False


def _job_of(runs: list[_Run]) -> Job | None:
    """Make a job of the records of its attempts, by the newest of them that describes the job; None: none does."""
    for run in reversed(runs):
        try:
            job = _told_by(run.claim["info"], runs)
            if _can_be_kept(job):
                return job
        except _NONSENSE:
            continue
    return None


def _can_be_kept(job: Job) -> bool:
    """Return whether the store gives a job back as it was."""
    row = row_of(job, basic_bytes(job), job.end_time, is_new=True)
    return job_of((row[0], *row[INTERNALS_AT:])) == job


def _told_by(info: Mapping[str, str], runs: list[_Run]) -> Job:
    last = runs[-1]
    if not info["id"]:
        raise ValueError("a job has an id")
    config = bytes.fromhex(info["config"])
    message = job_config_pb2.JobConfig.FromString(config)
    spec = spec_from_config(
        message,
        project_path=info["project"],
        project_key=project_key(info["project"]),
        scheduler=LOCAL,
        cores=total_cores(accepted_config(config)),
        memory_bytes=message.memory_bytes,
    )
    job = Job(
        uid=last.claim["uid"],
        seq=last.seq,
        id=info["id"],
        spec=spec,
        create_time=_time(info.get("create_time", runs[0].claim["time"])),
        config=config,
        summary=summary_of(message),
        requested_by=info.get("requested_by", ""),
        request_id=info.get("request_id", ""),
        digest=bytes.fromhex(info.get("digest", "")),
        priority=int(info.get("priority", "0")),
        user=info.get("user", ""),
        retry_of=info.get("retry_of", ""),
        attempts=tuple(map(_attempt_of, runs)),
        aedt_version=info.get("aedt_version", ""),
        demo=info.get("demo", "") == "true",
    )
    return _standing(job, last.record)


def project_key(path: str) -> str:
    """Return a project's path without .aedb, .aedt or .aedtz: one key, one run at a time."""
    flavor = ntpath if path[1:2] == ":" or path.startswith("\\\\") else posixpath
    plain = flavor.normpath(path) if path else ""
    stem, suffix = flavor.splitext(plain)
    return stem if suffix.lower() in _SUFFIXES else plain


def _attempt_of(run: _Run) -> Attempt:
    start, end = run.record.start, run.record.end
    attempt = Attempt(
        number=run.attempt,
        reserve_time=_time(run.claim["time"]),
        boot_id=run.claim["boot"],
        start_time=_time(start["time"]) if start else None,
        nodes=(run.claim["host"],),
        pid=start["pid"] or None if start else None,
        run_directory=str(run.folder),
    )
    if end is None:
        void = replace(attempt, end_time=attempt.reserve_time, outcome=_NOT_STARTED)
        return void if run.record.void else attempt
    ending = Ending(end["ending"])
    reason = Reason.NORMAL if ending is Ending.EXITED and end["code"] == 0 else _REASONS[ending]
    evidence = _EVIDENCE.get(ending, Evidence.EXIT_CODE)
    return replace(
        attempt,
        end_time=_time(end["time"]),
        outcome=Outcome(reason, evidence, end["message"], end["code"], end["signal"]),
        cpu_duration=stored_seconds(float(end["cpu"])),
        peak_memory_bytes=end["rss"],
    )


def _time(value: object) -> float:
    time = float(value)  # type: ignore[arg-type]
    if not 0 <= time <= _LATEST_SECONDS:
        raise ValueError(f"{time} is no time that a calendar has")
    return time


def _standing(job: Job, found: record.Record) -> Job:
    """Set what follows from the record of the last attempt."""
    attempt = job.attempts[-1]
    if found.cancel:
        asked, grace = _time(found.cancel["time"]), float(found.cancel["grace"])
        job = replace(job, cancel_request_time=asked, cancel_grace_period=grace)
    job = replace(job, start_time=attempt.start_time)
    if attempt.end_time is None:
        return replace(job, state=State.RUNNING if found.start else State.QUEUED)
    outcome = Outcome(Reason.LOST, Evidence.NONE, _NEVER_RAN)
    if attempt.outcome is not None and attempt.outcome is not _NOT_STARTED:
        never_ran = found.end is not None and found.end["ending"] == Ending.NEVER_RAN.value
        outcome = replace(attempt.outcome, message=_NEVER_RAN if never_ran else _UNJUDGED)
    return replace(job, state=outcome.reason.state, outcome=outcome, end_time=attempt.end_time)


def _write(path: Path, jobs: list[Job], last_seq: int) -> None:
    connection = open_checked(path)
    try:
        state = read_state(connection)
        connection.execute("BEGIN IMMEDIATE")
        tx = Transaction(connection, state, time.time())
        for job in jobs:
            while not job.state.terminal and tx.live_id(job.id) is not None:
                job = replace(job, id=f"{job.id}.{job.seq}")
            state.last_seq = job.seq - 1
            tx.insert(job, _EVENTS[job.state])
        tx.flush()
        # A number is never given again, also that of a folder without a readable record.
        connection.execute(QUERIES["set_counters"], (state.revision, last_seq))
        connection.execute("COMMIT")
        connection.execute(QUERIES["set_clean"], (1,))
    finally:
        connection.close()
