"""What HPC Pack's words mean: states, how a job ended, times, nodes.

Known from Microsoft's documents: the states, the property names and the numbers of errors (JobState, TaskState,
``Microsoft.Hpc.Scheduler.Properties.ErrorCode``); that the exit code is a task's; that a cancelled task makes its
job Failed, and that the words of a cancel come back in ErrorMessage (Microsoft's public acceptance test of the
routes). Not known, so inferred: the English sentences of ErrorMessage, and whether the service gives ErrorCode at
all. Errors are therefore recognized by their number where it is given, then by what needs no language (how long it ran
against its limit, whether it ever started), and only then by English words.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.schedulers.base import Phase

# A cancel's words may have 128 characters (MaxCancelMsgLen in Microsoft's client library).
NEVER_SUBMITTED = "edbjobs: made but never submitted, so it is called off"
CANCELLED = "edbjobs: cancelled"
_FUTURE = 300.0  # seconds that two clocks may differ

# In the order of a job's life (JobState).
PHASES = {
    "Configuring": Phase.PENDING,
    "Submitted": Phase.PENDING,
    "Validating": Phase.PENDING,
    "ExternalValidation": Phase.PENDING,
    "Queued": Phase.PENDING,
    "Running": Phase.RUNNING,
    "Finishing": Phase.ENDING,
    "Canceling": Phase.ENDING,
    "Finished": Phase.ENDED,
    "Failed": Phase.ENDED,
    "Canceled": Phase.ENDED,
}
LIVE = tuple(state for state, phase in PHASES.items() if phase is not Phase.ENDED and state != "Configuring")

_BY_CODE = {
    **dict.fromkeys((-2147218987, -2147218985), Ending.TIMEOUT),  # Execution_JobRuntimeExpired, _TaskRuntimeExpired
    # Operation_CanceledByUser; Execution_JobCanceled, _TasksJobCanceled, _TaskCanceledDuringExecution,
    # _TaskCanceledBeforeAssignment
    **dict.fromkeys((-2147220991, -2147218982, -2147218989, -2147218969, -2147218971), Ending.CANCELLED_EXTERNALLY),
    # Execution_NodeError, _NodeUnreachable, _ResourceFailure, _TaskNodeNotUsable, _StartJobFailedOnNode
    **dict.fromkeys((-2147218990, -2147218984, -2147218981, -2147218967, -2147218977), Ending.NODE_FAIL),
    **dict.fromkeys((-2147218978, -2147218976), Ending.PREEMPTED),  # Execution_JobPreempted, _TasksPreempted
    # Execution_TaskExecutionFailure, _WorkingDirectoryNotFound, _FailedToOpenStandardError, …Output, …Input
    **dict.fromkeys((-2147218979, -2147218972, -2147218973, -2147218974, -2147218975), Ending.START_FAILED),
}
_BY_WORDS = (
    (Ending.CANCELLED_EXTERNALLY, r"^(the )?(job|task)?\s*(was )?cancell?ed (by|during|before)\b|^edbjobs: "),
    (Ending.TIMEOUT, r"run-?\s?time\b.*\b(exceeded|expired|limit)|(exceeded|expired)\b.*\brun-?\s?time"),
    (Ending.PREEMPTED, r"\bpreempted\b"),
    (
        Ending.NODE_FAIL,
        r"\bnodes?\b.*\b(unreachable|not reachable|not usable|no longer reachable)\b|\berror on the node",
    ),
    (Ending.START_FAILED, r"\b(working directory|standard (output|error|input))\b|\bcannot find the file\b"),
)


# What PowerShell writes where it does not run the script at all, in any language, and what the script itself says.
_NOT_RUN = re.compile(
    r"\b(PSSecurityException|UnauthorizedAccess)\b"  # FullyQualifiedErrorId: an execution policy
    r"|(?<![\w-])-File\b"  # "The argument '…' to the -File parameter does not exist"
    r"|^edbjobs: "
)


@dataclass(frozen=True, slots=True)
class End:
    """How a job ended; `exit_code` is its task's."""

    ending: Ending
    exit_code: int | None = None
    message: str = ""


class Clock:
    """Reads times in the head node's own form.

    Parameters
    ----------
    pattern : str
        As ``/cluster/info/dateTimeFormat`` gives it, for example ``"M/d/yyyy h:mm:ss tt"``.
    """

    _PARTS = (
        ("yyyy", r"(?P<year>\d{4})"), ("yy", r"(?P<year>\d{2})"), ("MM?", r"(?P<month>\d{1,2})"),
        ("dd?", r"(?P<day>\d{1,2})"), ("hh?|HH?", r"(?P<hour>\d{1,2})"), ("mm?", r"(?P<minute>\d{1,2})"),
        ("ss?", r"(?P<second>\d{1,2})"), ("tt?", r"(?P<half>\S+)"),
    )  # fmt: skip

    def __init__(self, pattern: str) -> None:
        pieces = re.findall(r"([A-Za-z])(\1*)|([^A-Za-z]+)", pattern)
        form = "".join(self._part(first + more) if first else re.escape(rest) for first, more, rest in pieces)
        try:
            self._form = re.compile(form)
        except re.error:  # a part of a date twice
            self._form = re.compile(r"(?!)")

    def _part(self, letters: str) -> str:
        return next((form for known, form in self._PARTS if re.fullmatch(known, letters)), re.escape(letters))

    def seconds(self, text: str | None) -> float | None:
        """Return seconds since the epoch; None where there is no time, as for a job that has not started.

        Times are taken as UTC (ISchedulerJob's documents), and one in the future as none: then they are not.
        """
        match = self._form.fullmatch((text or "").strip())
        if match is None:
            return None
        part = match.groupdict()
        hour = int(part.get("hour") or 0)
        half = (part.get("half") or "").upper().replace(".", "")
        if half in ("AM", "PM"):
            hour = hour % 12 + (12 if half == "PM" else 0)
        year, month, day = (int(part.get(name) or 0) for name in ("year", "month", "day"))
        if year < 1970 or not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24):
            return None  # DateTime.MinValue is "not yet"
        moment = (year, month, day, hour, int(part.get("minute") or 0), int(part.get("second") or 0), 0, 0, 0)
        found = float(calendar.timegm(moment))
        return found if found <= time.time() + _FUTURE else None


def nodes_of(text: str | None) -> tuple[str, ...]:
    """Read AllocatedNodes: names with commas or blanks between; numbers of cores beside them are passed over."""
    return tuple(name for name in re.split(r"[,;\s]+", text or "") if name and not name.isdecimal())


def ending_of(job: Mapping[str, str], task: Mapping[str, str], clock: Clock) -> End:
    """Return how an ended job ended.

    Parameters
    ----------
    job, task : mapping of str to str
        Properties of the job and of its task; empty where it has no task.
    clock : Clock
        Reads their times.

    Returns
    -------
    End
        A cancelled job is CANCELLED_EXTERNALLY; the executor knows whether we requested it.
        EXITED only with a task's exit code; LOST where nothing shows the end.
    """
    words = job.get("ErrorMessage", "").strip()
    if NEVER_SUBMITTED in words:
        return End(Ending.NEVER_RAN)
    code = _number(task.get("ExitCode"))
    if job.get("State") == "Finished":
        return _finished(task, code)
    started = clock.seconds(job.get("StartTime") or task.get("StartTime"))
    told = _by_code(job) or _by_code(task)
    if told is None and _ran_out(job, task, clock):
        told = Ending.TIMEOUT
    end_in_output = " ".join(text for text in (words, task.get("ErrorMessage", "").strip()) if text)
    if job.get("State") == "Canceled":
        return End(told or Ending.CANCELLED_EXTERNALLY, message=end_in_output)
    told = told or _by_words(words) or _by_words(task.get("ErrorMessage", "").strip())
    if told is not None:
        return End(told, message=end_in_output)
    if started is None and not nodes_of(job.get("AllocatedNodes") or task.get("AllocatedNodes")):
        # A submitted job that does not pass validation goes to Failed (Understanding Job and Task States).
        return End(Ending.SUBMIT_REFUSED, message=end_in_output)
    if code is not None and code != 0:
        return End(Ending.EXITED, code)
    return End(Ending.LOST, message=end_in_output or "it is Failed, and its task has no exit code")


def end_in_output(output: str) -> tuple[Ending, str] | None:
    """Return from the task's own output why the script was not run; None: it does not show that.

    The output is PowerShell's and the script's: the solver's goes elsewhere.
    """
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    if not any(_NOT_RUN.search(line) for line in lines):
        return None
    own = next((line for line in lines if line.startswith("edbjobs: ")), "")
    return Ending.START_FAILED, own.removeprefix("edbjobs: ") or f"PowerShell did not run it: {' '.join(lines)[:500]}"


def _finished(task: Mapping[str, str], code: int | None) -> End:
    if task.get("State") == "Finished" and code is not None:
        return End(Ending.EXITED, code)
    # "finish" ends a job like a cancel, but calls it Finished (specification of the routes).
    end_in_output = task.get("ErrorMessage", "").strip() or "the job was declared finished while its task was not"
    return End(Ending.CANCELLED_EXTERNALLY, message=end_in_output)


def _by_code(item: Mapping[str, str]) -> Ending | None:
    number = _number(item.get("ErrorCode"))
    if number is not None and number > 2**31:
        number -= 2**32
    return _BY_CODE.get(number) if number is not None else None


def _ran_out(job: Mapping[str, str], task: Mapping[str, str], clock: Clock) -> bool:
    limit = _number(job.get("RuntimeSeconds"))
    start = clock.seconds(job.get("StartTime") or task.get("StartTime"))
    end = clock.seconds(job.get("EndTime") or task.get("EndTime"))
    return bool(limit and start is not None and end is not None and end - start >= limit)


def _by_words(words: str) -> Ending | None:
    return next((ending for ending, form in _BY_WORDS if re.search(form, words, re.IGNORECASE)), None)


def _number(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None
