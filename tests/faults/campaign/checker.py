"""Decides what went wrong, from evidence alone: each rule yields one sentence for each breach."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from edbjobs.v1 import event_pb2, job_pb2, job_state_pb2
from faults.campaign.evidence import REQUEST_LABEL, Evidence, Note

S = job_state_pb2
TERMINAL = frozenset({S.JOB_STATE_COMPLETED, S.JOB_STATE_FAILED, S.JOB_STATE_CANCELLED})
END_SECONDS = 5.0  # a cancelled job has ended so long after its grace
Rule = Callable[[Evidence], Iterator[str]]
Attempt = tuple[str, int]  # id and number


def check(evidence: Evidence) -> dict[str, list[str]]:
    """Return the violations of each invariant."""
    return {name: list(rule(evidence)) for name, rule in RULES.items()}


def lost(evidence: Evidence) -> Iterator[str]:
    """I1: an acknowledged submit has an end."""
    for uid in sorted({submit.uid for submit in evidence.submits}):
        job = evidence.jobs.get(uid)
        if job is None:
            yield f"job {uid} was acknowledged and is gone"
        elif job.state not in TERMINAL:
            yield f"job {job.id} has not ended: {S.JobState.Name(job.state)}, {job.waiting.message}"


def doubled(evidence: Evidence) -> Iterator[str]:
    """I2: a solver starts once, in one attempt, as no job here asks for retries; and what started is on record."""
    starts = Counter((note.job, note.attempt) for note in evidence.notes if note.what == "start")
    for (name, number), count in starts.items():
        if count > 1:
            yield f"{name}, attempt {number} started {count} times"
    attempts = Counter(name for name, _ in starts)
    for name, count in attempts.items():
        if count > 1:
            yield f"{name} ran in {count} attempts"
    by_id = {job.id: job for job in evidence.jobs.values()}
    for name, number in starts:
        recorded = by_id[name].attempts if name in by_id else []
        if not any(attempt.number == number and attempt.HasField("start_time") for attempt in recorded):
            yield f"attempt {number} of {name} ran, but is not on record as started"


def false_end(evidence: Evidence) -> Iterator[str]:
    """I3: the reported end agrees with what the solver recorded."""
    good = {submit.uid: submit.good for submit in evidence.submits}
    seen: defaultdict[Attempt, set[str]] = defaultdict(set)
    for note in evidence.notes:
        seen[note.job, note.attempt].add(note.what)
    for job in evidence.jobs.values():
        notes = seen[job.id, job.attempt_count]
        finished = "end" in notes and "sigterm" not in notes and good.get(job.uid, True)
        unknown = job.outcome.evidence == S.EVIDENCE_NONE and job.outcome.reason == S.END_REASON_LOST
        excused = unknown or job.uid in evidence.killed or job.uid in evidence.cancels
        if job.state == S.JOB_STATE_COMPLETED and not finished:
            yield f"{job.id} is COMPLETED, but its solver saw {sorted(notes)}"
        elif job.state in TERMINAL - {S.JOB_STATE_COMPLETED} and finished and not excused:
            yield f"{job.id} is {S.JobState.Name(job.state)} though its solver ended well: {job.outcome.message}"
        elif unknown and job.uid not in evidence.killed:
            yield f"{job.id} is LOST although its supervisor was not killed: {job.outcome.message}"


def orphaned(evidence: Evidence) -> Iterator[str]:
    """I4: no process of an ended job lives, and no other process was ended."""
    yield from (f"process {pid} of the ended job {uid} lives" for uid, pid in evidence.left)
    yield from evidence.harmed


def repeated(evidence: Evidence) -> Iterator[str]:
    """I5: one request, one job."""
    answered: defaultdict[str, set[str]] = defaultdict(set)
    for submit in evidence.submits:
        answered[submit.request_id].add(submit.uid)
    for job in evidence.jobs.values():
        answered[job.config.labels[REQUEST_LABEL]].add(job.uid)
    for request, uids in answered.items():
        if len(uids) > 1:
            yield f"request {request} made {len(uids)} jobs: {sorted(uids)}"


def over_limit(evidence: Evidence) -> Iterator[str]:
    """I6: never more runs than allowed, by the solvers' own account and by the record."""
    changes = [(start, 1) for start, _ in _spans(evidence.notes).values()]
    changes += [(end, -1) for _, end in _spans(evidence.notes).values()]
    number = 0
    for at, change in sorted(changes):
        number += change
        if number > evidence.max_jobs:
            yield f"{number} solvers ran at once, {at:.3f}"
    reserved: set[str] = set()
    for event in evidence.events:
        job = event.job_change.job
        (reserved.add if _has_open_attempt(job) else reserved.discard)(job.uid)
        if len(reserved) > evidence.max_jobs:
            yield f"{len(reserved)} runs were reserved at revision {event.revision}"


def out_of_order(evidence: Evidence) -> Iterator[str]:
    """I7: no job is passed by more later ones than may have been planned before it came."""
    waiting: dict[str, tuple[tuple[int, int], int]] = {}  # by uid: place in the order, number of those that passed
    seq = {uid: number for number, uid in enumerate(_first_seen(evidence))}
    for event in evidence.events:
        job = event.job_change.job
        if job.uid not in seq:
            continue  # its first event never came, which breaks another rule
        if event.job_change.type == event_pb2.JOB_CHANGE_TYPE_STARTING:
            place = (-job.priority, seq[job.uid])
            for uid, (other, passed) in list(waiting.items()):
                if uid != job.uid and other < place:
                    waiting[uid] = (other, passed + 1)
                    if passed + 1 > evidence.max_jobs:
                        yield f"{job.id} started as number {passed + 1} before {uid}, which comes first"
        fresh = job.state == S.JOB_STATE_QUEUED and not job.attempt_count and not job.held
        if not fresh:
            waiting.pop(job.uid, None)
        elif waiting.get(job.uid, ((0, -1), 0))[0] != (-job.priority, seq[job.uid]):
            waiting[job.uid] = ((-job.priority, seq[job.uid]), 0)


def missed(evidence: Evidence) -> Iterator[str]:
    """I8: every revision once and in order, and the last event of a job is the job."""
    yield from evidence.watch_errors
    revisions = [event.revision for event in evidence.events]
    if revisions != list(range(1, evidence.revision + 1)):
        pairs = itertools.pairwise([0, *revisions, evidence.revision + 1])
        yield f"revisions do not follow each other: {[(a, b) for a, b in pairs if b != a + 1][:5]}"
    changes = [event.job_change for event in evidence.events if event.HasField("job_change")]
    last = {change.job.uid: change.job for change in changes}
    for uid, job in evidence.jobs.items():
        if uid not in last:
            yield f"no event reported {uid}"
        elif _bare(last[uid]) != _bare(job):
            yield f"the last event of {job.id} differs from the job"


def slow_cancel(evidence: Evidence) -> Iterator[str]:
    """I9: a cancelled job has ended within its grace and a few seconds, less what the service was away."""
    for uid, grace in evidence.cancels.items():
        job = evidence.jobs.get(uid)
        if job is None or evidence.stepped or not job.HasField("cancel_request_time") or job.state not in TERMINAL:
            continue  # the answer may never have come; a job without an end breaks another rule
        asked, ended = job.cancel_request_time.ToNanoseconds() / 1e9, job.end_time.ToNanoseconds() / 1e9
        away = sum(max(0.0, min(up, ended) - max(down, asked)) for down, up in evidence.downs)
        if ended - asked - away > grace + END_SECONDS:
            yield f"{job.id} ended {ended - asked:.1f} s after its cancel, of which the service was away {away:.1f} s"


def not_adopted(evidence: Evidence) -> Iterator[str]:
    """I10: a run that went on keeps its number and its process."""
    for seen in evidence.sightings:
        job = evidence.jobs.get(seen.uid)
        pids = {attempt.number: attempt.pid for attempt in job.attempts} if job else {}
        if pids.get(seen.attempt) != seen.pid:
            yield f"attempt {seen.attempt} of {seen.uid} had pid {seen.pid}, on record is {pids}"


def broken_store(evidence: Evidence) -> Iterator[str]:
    """I12: the store is whole."""
    if evidence.integrity != "ok":
        yield evidence.integrity


RULES: dict[str, Rule] = {
    "I1 lost": lost,
    "I2 started twice": doubled,
    "I3 false end": false_end,
    "I4 orphan": orphaned,
    "I5 request repeated": repeated,
    "I6 limit": over_limit,
    "I7 order": out_of_order,
    "I8 events": missed,
    "I9 cancel": slow_cancel,
    "I10 adoption": not_adopted,
    "I12 store": broken_store,
}


def _spans(notes: list[Note]) -> dict[Attempt, tuple[float, float]]:
    """First and last that was heard of each attempt: it ran at least so long."""
    found: dict[Attempt, tuple[float, float]] = {}
    for note in notes:
        first, last = found.get((note.job, note.attempt), (note.at, note.at))
        found[note.job, note.attempt] = (min(first, note.at), max(last, note.at))
    return found


def _first_seen(evidence: Evidence) -> dict[str, None]:
    """Uids in order of acceptance."""
    changes = [event.job_change for event in evidence.events]
    return dict.fromkeys(change.job.uid for change in changes if change.type == event_pb2.JOB_CHANGE_TYPE_QUEUED)


def _has_open_attempt(job: job_pb2.Job) -> bool:
    """Return whether a job of an event has a run: events have no attempts, but say why a queued job waits."""
    if job.state != S.JOB_STATE_QUEUED:
        return job.state in (S.JOB_STATE_SCHEDULED, S.JOB_STATE_RUNNING)
    return job.waiting.reason in (S.WAITING_REASON_STARTING, S.WAITING_REASON_CANCELLING, S.WAITING_REASON_UNKILLABLE)


def _bare(job: job_pb2.Job) -> job_pb2.Job:
    """Return what an event has of a job."""
    bare = job_pb2.Job()
    bare.CopyFrom(job)
    for name in ("waiting", "progress", "attempts", "warnings", "config", "view"):
        bare.ClearField(name)
    return bare
