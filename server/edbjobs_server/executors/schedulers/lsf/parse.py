"""What LSF answers, and what it means.

The text forms were recorded with OpenLava 2.2, the JSON is that of public examples of IBM's LSF 10.1; reasons for a
job's end are from its administrator's guide. Exit codes of ``bjobs`` depend on the site
(LSB_BJOBS_CONSISTENT_EXIT_CODE), so only words count.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.schedulers.base import ClusterJob, ClusterJobStatus, Phase

# Asked for with -o, each seen in an example of 10.1.
FIELDS = " ".join((
    "jobid", "job_name", "stat", "user", "queue", "slots", "exec_host", "submit_time", "start_time", "finish_time",
    "exit_code", "exit_reason", "pend_reason",
))  # fmt: skip
PHASES = {
    "PEND": Phase.PENDING, "PSUSP": Phase.PENDING, "WAIT": Phase.PENDING, "PROV": Phase.PENDING,
    "RUN": Phase.RUNNING, "USUSP": Phase.RUNNING, "SSUSP": Phase.RUNNING, "UNKWN": Phase.RUNNING,
    "ZOMBI": Phase.ENDING, "DONE": Phase.ENDED, "EXIT": Phase.ENDED,
}  # fmt: skip
_MESSAGES = {
    "UNKWN": "its node does not answer LSF",
    "ZOMBI": "it was ended while its node did not answer LSF",
}
_X = Ending.CANCELLED_EXTERNALLY
_REASONS = {
    "RUNLIMIT": Ending.TIMEOUT, "CPULIMIT": Ending.TIMEOUT, "DEADLINE": Ending.TIMEOUT,
    "MEMLIMIT": Ending.OUT_OF_MEMORY, "SWAP": Ending.OUT_OF_MEMORY,
    "PREEMPT": Ending.PREEMPTED, "WINDOW": Ending.PREEMPTED, "LOAD": Ending.PREEMPTED,
    "RC_RECLAIM": Ending.PREEMPTED, "MC_RECALL": Ending.PREEMPTED,
    "ZOMBIE": Ending.NODE_FAIL, "REMOVE_HUNG_JOB": Ending.NODE_FAIL, "SLURM": Ending.NODE_FAIL,
    "RMS": Ending.NODE_FAIL, "CTRL_PID": Ending.NODE_FAIL, "KUBE": Ending.NODE_FAIL, "CSM_ALLOC": Ending.NODE_FAIL,
    "OWNER": _X, "ADMIN": _X, "FORCE_OWNER": _X, "FORCE_ADMIN": _X, "REQUEUE_OWNER": _X, "REQUEUE_ADMIN": _X,
    "BUCKET_KILL": _X, "ORPHAN_SYSTEM": _X, "PROCESSLIMIT": _X, "THREADLIMIT": _X, "CHKPNT": _X,
    "CWD_NOTEXIST": Ending.START_FAILED, "PRE_EXEC_FAIL": Ending.START_FAILED, "DATA": Ending.START_FAILED,
}  # fmt: skip
_SIGNAL_BASE = 128
_LIMIT_CODE = 140  # 128 + USR2, which LSF sends at the run limit (recorded); a script can exit with it too
_LIMIT_SLACK = 90.0  # seconds; LSF looks at limits about once a minute
_REASON = re.compile(r"TERM_([A-Z_]+)\b.*")
_NEVER = re.compile(r"never satisfied|inactivated by the (?:LSF )?administrator|cannot be satisfied", re.IGNORECASE)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE = re.compile(
    r"(?:[A-Z][a-z]{2} +)?(?P<month>[A-Z][a-z]{2}) +(?P<day>\d{1,2}) +(?P<hour>\d{1,2}):(?P<minute>\d\d)"
    r"(?::(?P<second>\d\d))?(?: +(?P<year>\d{4}))?(?: +[A-Z])?",
    re.ASCII,
)
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Job:
    """What LSF reports of a job.

    Attributes
    ----------
    reason : str
        Why it waits.
    term : str
        Why it was ended, ``TERM_...``.
    asked : str
        Who asked for a signal to it.
    limit : float
        Seconds it may run; 0: not reported.
    """

    id: str
    name: str
    state: str
    user: str = ""
    queue: str = ""
    slots: int = 0
    hosts: tuple[str, ...] = ()
    submit: float | None = None
    start: float | None = None
    finish: float | None = None
    code: int | None = None
    reason: str = ""
    term: str = ""
    asked: str = ""
    limit: float = 0.0


def document(text: str) -> list[Mapping[str, Any]] | None:
    """Read an answer in JSON, which lines for people may precede; None: it is none, or was cut short."""
    try:
        found, _ = json.JSONDecoder(strict=False).raw_decode(text, max(0, text.find("{")))
    except (ValueError, RecursionError):
        return None
    records = found.get("RECORDS") if isinstance(found, dict) else None
    return [record for record in records if isinstance(record, dict)] if isinstance(records, list) else None


def records(found: Iterable[Mapping[str, Any]], now: float) -> list[Job]:
    """Read the jobs of a document; what has no id or no known state is left out."""
    return [job for job in (_record(record, now) for record in found) if job is not None]


def _record(record: Mapping[str, Any], now: float) -> Job | None:
    def text(name: str) -> str:
        value = record.get(name, "")
        return value.strip() if isinstance(value, str) and value.strip() != "-" else ""

    if not re.fullmatch(r"\d{1,18}", text("JOBID"), re.ASCII) or text("STAT") not in PHASES or "ERROR" in record:
        return None
    return Job(
        id=text("JOBID"),
        name=text("JOB_NAME"),
        state=text("STAT"),
        user=text("USER"),
        queue=text("QUEUE"),
        slots=_whole(text("SLOTS")) or 0,
        hosts=exec_hosts(text("EXEC_HOST")),
        submit=moment(text("SUBMIT_TIME"), now),
        start=_latest(text("START_TIME"), now),
        finish=_latest(text("FINISH_TIME"), now),
        code=_whole(text("EXIT_CODE")),
        reason=text("PEND_REASON"),
        term=text("EXIT_REASON"),
    )


_ROW = re.compile(
    r"(?P<id>\d{1,18}) +(?P<user>\S+) +(?P<state>[A-Z]+) +(?P<queue>\S+) +(?P<from>\S+) +(?:(?P<hosts>\S+) +)?"
    r"(?P<name>\S(?:.*\S)?) +(?P<time>[A-Z][a-z]{2} +\d{1,2} \d\d:\d\d)",
    re.ASCII,
)

_PENDING_ROW = re.compile(r"(\d{1,18}) +\S", re.ASCII)


def table(text: str, now: float) -> list[Job] | None:
    """Read ``bjobs -w``; None: it is no such table."""
    lines = text.splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith("JOBID ")]
    if not heads or not text.endswith("\n"):
        return None
    found = []
    for line in lines[heads[0] + 1 :]:
        match = _ROW.fullmatch(line.rstrip())
        if match is not None and match["state"] in PHASES:
            found.append(
                Job(
                    id=match["id"],
                    name=match["name"],
                    state=match["state"],
                    user=match["user"],
                    queue=match["queue"],
                    hosts=exec_hosts(match["hosts"] or ""),
                    slots=_slots(match["hosts"] or ""),
                    submit=moment(match["time"], now),
                )
            )
    return found


def reasons(text: str) -> dict[str, str]:
    """Read from ``bjobs -p`` what jobs wait for, by id: lines that start with a blank, after the job's own."""
    found: dict[str, str] = {}
    ident = ""
    for line in text.splitlines():
        match = _PENDING_ROW.match(line)
        if match is not None:
            ident = match[1]
        elif ident and line.startswith(" ") and line.strip():
            found[ident] = f"{found.get(ident, '')} {line.strip()}".lstrip()
    return found


def exec_hosts(text: str) -> tuple[str, ...]:
    """Read ``hostA:hostB`` or ``4*hostA:2*hostB``."""
    names = (part.partition("*")[2] or part for part in text.split(":"))
    return tuple(dict.fromkeys(name for name in names if name and name != "-"))


def _slots(text: str) -> int:
    parts = [part for part in text.split(":") if part and part != "-"]
    return sum(_whole(part.partition("*")[0]) or 1 for part in parts)


def undisputed(jobs: Iterable[Job]) -> dict[str, Job]:
    """Return jobs by id; one that is reported twice, differently, is left out, as the members of an array are."""
    found: dict[str, Job] = {}
    disputed = set()
    for job in jobs:
        if found.setdefault(job.id, job) != job:
            disputed.add(job.id)
    return {name: job for name, job in found.items() if name not in disputed}


def statuses(jobs: Iterable[Job]) -> dict[str, ClusterJobStatus]:
    """Return the jobs' states, by id."""
    return {name: status(job) for name, job in undisputed(jobs).items()}


def status(job: Job) -> ClusterJobStatus:
    """Return a job's state; an end that is not certain has no `ending`."""
    phase = PHASES[job.state]
    ended = phase is Phase.ENDED
    ending, code, signal = (None, None, None)
    if ended:
        ending, code, signal = (Ending.EXITED, 0, None) if job.state == "DONE" else _ending(job)
    message = _MESSAGES.get(job.state, "")
    if job.state == "PSUSP":
        message = "it is held; bresume releases it"
    elif job.asked and ending is _X:
        message = f"{job.asked} asked for its end"
    return ClusterJobStatus(
        id=job.id,
        name=job.name,
        phase=phase,
        state=job.state,
        reason=job.term or job.reason,
        never=phase is Phase.PENDING and (job.state == "PSUSP" or bool(_NEVER.search(job.reason))),
        nodes=job.hosts if phase is not Phase.PENDING else (),
        submit_time=job.submit,
        start_time=job.start if phase is not Phase.PENDING else None,
        end_time=job.finish if ended else None,
        ending=ending,
        exit_code=code,
        signal=signal,
        message=message,
    )


def _ending(job: Job) -> tuple[Ending | None, int | None, int | None]:
    """Return how a job in state EXIT ended: by its reason, then by who requested it, then by its exit code."""
    reason = _REASON.search(job.term)
    code = job.code
    if reason is not None and reason[1] in _REASONS:
        return _REASONS[reason[1]], code, None
    if reason is not None and reason[1] == "EXTERNAL_SIGNAL" and code is not None and code > _SIGNAL_BASE:
        return Ending.SIGNALLED, None, code - _SIGNAL_BASE
    if job.asked:
        return _X, code, None
    if code is not None and 0 < code <= _SIGNAL_BASE:
        return Ending.EXITED, code, None
    return None, code, None


def settled(job: Job) -> ClusterJobStatus:
    """Return how a job ended of which LSF has reported all it knows."""
    found = status(job)
    if found.phase is not Phase.ENDED or found.ending is not None:
        return found
    if job.code == _LIMIT_CODE and _ran_out(job):
        return replace(found, ending=Ending.TIMEOUT, message=f"it reached its limit of {job.limit / 60:g} min")
    if job.code:
        return replace(found, ending=Ending.EXITED, exit_code=job.code)
    if job.start is None and not job.hosts:
        return replace(found, ending=_X, message="it was ended before it started")
    return replace(found, ending=Ending.LOST, message="LSF reports neither exit code nor reason")


def _ran_out(job: Job) -> bool:
    if not job.limit or job.start is None or job.finish is None:
        return False
    return abs(job.finish - job.start - job.limit) <= _LIMIT_SLACK


def merged(job: Job, history: Job | None) -> Job:
    """Add the end of a job from its history."""
    if history is None or history.name != job.name:
        return job
    return replace(
        job,
        hosts=job.hosts or history.hosts,
        start=history.start or job.start,
        finish=history.finish or job.finish,
        code=job.code if job.code is not None else history.code,
        term=job.term or history.term,
        asked=history.asked,
        limit=job.limit or history.limit,
    )


_SAID = re.compile(r"^TERM_([A-Z_]+): .*$", re.MULTILINE)


def end_in_output(output: str) -> tuple[Ending, str] | None:
    """Return what LSF wrote into a job's output about its end, as in a report of 10.1; OpenLava writes no reason."""
    for match in reversed(list(_SAID.finditer(output))):
        if match[1] in _REASONS:
            return _REASONS[match[1]], match[0].strip()
    return None


def cluster_job(job: Job) -> ClusterJob:
    """Return a job of any user."""
    return ClusterJob(
        id=job.id,
        name=job.name,
        user=job.user,
        partition=job.queue,
        state=job.state,
        reason=job.reason,
        node_count=len(job.hosts),
        core_count=job.slots,
        nodes=tuple(job.hosts),
        start_time=job.start,
    )


def moment(text: str, now: float) -> float | None:
    """Read a time such as ``Nov 23 13:29``, ``Mon Nov 23 13:29:39`` or ``Nov 23 13:29 L``, in this host's zone.

    LSF gives no year: it is the latest that makes it no more than a day ahead of `now`.
    """
    match = _DATE.fullmatch(text.strip())
    if match is None or match["month"] not in _MONTHS:
        return None
    month = _MONTHS.index(match["month"]) + 1
    rest = (int(match["day"]), int(match["hour"]), int(match["minute"]), int(match["second"] or 0), 0, 0, -1)
    this_year = time.localtime(now).tm_year
    try:
        if match["year"]:
            return time.mktime((int(match["year"]), month, *rest))
        found = time.mktime((this_year + 1, month, *rest))
        while found > now + _DAY:
            this_year -= 1
            found = time.mktime((this_year + 1, month, *rest))
    except (OverflowError, ValueError):
        return None
    return found


def _latest(text: str, now: float) -> float | None:
    """Read a time that may have only minutes: the latest in it, so that nothing ends before it starts."""
    found = moment(text, now)
    match = _DATE.fullmatch(text.strip())
    if found is None or match is None or match["second"]:
        return found
    return max(found, min(found + 59.0, now))


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else None
