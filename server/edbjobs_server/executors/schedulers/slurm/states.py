"""What SLURM's words mean: states, reasons, exit codes, refusals, and slurmstepd's lines.

Measured on SLURM 22.05.8; names of states and reasons from squeue(1) and https://slurm.schedmd.com/job_reason_codes.html.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.schedulers.base import Phase

# A state that is not listed (REVOKED of a federation, one of a later release) is never concluded from.
PHASES = {
    **dict.fromkeys(
        ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
        Phase.PENDING,
    ),
    **dict.fromkeys(("RUNNING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING"), Phase.RUNNING),
    **dict.fromkeys(("COMPLETING", "STAGE_OUT"), Phase.ENDING),
    **dict.fromkeys(
        (
            "COMPLETED",
            "FAILED",
            "CANCELLED",
            "TIMEOUT",
            "DEADLINE",
            "NODE_FAIL",
            "BOOT_FAIL",
            "OUT_OF_MEMORY",
            "PREEMPTED",
        ),
        Phase.ENDED,
    ),
}

# The state alone decides: any of these may come with the exit code 0:0.
_BY_STATE = {
    "CANCELLED": (Ending.CANCELLED_EXTERNALLY, ""),
    "TIMEOUT": (Ending.TIMEOUT, ""),
    "DEADLINE": (Ending.TIMEOUT, "SLURM ended the job because its deadline passed"),
    "NODE_FAIL": (Ending.NODE_FAIL, ""),
    "BOOT_FAIL": (Ending.NODE_FAIL, "a node of the job did not boot"),
    "OUT_OF_MEMORY": (Ending.OUT_OF_MEMORY, ""),
    "PREEMPTED": (Ending.PREEMPTED, ""),
}

_NO_OUTPUT = 53  # slurmstepd could not enter the folder or open the output
_MAX_SIGNAL = 64

_HELD = "the job is held: it must be released ({who}), for example with `scontrol release`, or to cancel it"
_NEVER = {
    "PartitionConfig": "the partition cannot give what the job asks for (nodes, cores or memory): ask for less, or "
    "another partition",
    "PartitionNodeLimit": "the job asks for more or fewer nodes than its partition allows, or for nodes that are down",
    "PartitionTimeLimit": "the job's time limit is above its partition's: ask for less time, or another partition",
    "PartitionDown": "the partition is down until an administrator opens it",
    "PartitionInactive": "the partition is inactive until an administrator opens it",
    "BadConstraints": "no node can meet the job's constraints",
    "DependencyNeverSatisfied": "the job depends on another one that did not end as required",
    "InvalidAccount": "the job's account is not valid",
    "InvalidQOS": "the job's QOS is not valid",
    "AccountNotAllowed": "the job's account may not use the partition",
    "QOSNotAllowed": "the job's QOS may not be used in the partition or by the account",
    "ReservationDeleted": "the job's reservation has been deleted",
    "JobHeldUser": _HELD.format(who="its user"),
    "JobHeldAdmin": _HELD.format(who="an administrator"),
    "JobHoldMaxRequeue": _HELD.format(who="SLURM, after it was requeued too often"),
    "job requeued in held state": _HELD.format(who="by the user who requeued it"),
    "launch failed requeued held": _HELD.format(who="SLURM, after it could not be launched"),
}
# Limits on one job alone: no other job's end changes them. Limits on what a user, an account or a group has at one
# time (Assoc/QOS ...MaxJobs..., ...PerUser..., Grp...) are not here: they give way when other jobs end or usage decays.
_PER_JOB = re.compile(r"(Assoc|QOS)(Max\w*Per(Job|Node)|Min)\w*")


def never(reason: str) -> tuple[bool, str]:
    """Return whether a pending job's reason cannot resolve by itself, and what it means for people."""
    word = reason.split(",")[0].strip("() ")
    if word in _NEVER:
        return True, _NEVER[word]
    if _PER_JOB.fullmatch(word):
        return True, f"the job asks for more or less than one job may have ({word}): change what it asks for"
    return False, ""


@dataclass(frozen=True, slots=True)
class End:
    """How an ended job ended; `exit_code` and `signal` are those of the batch script."""

    ending: Ending
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""


def end_of(state: str, code: int, signal: int, *, ran: bool, reason: str = "") -> End:
    """Return how a job ended by its state and exit code.

    Parameters
    ----------
    state : str
        One that `PHASES` knows as ended.
    code, signal : int
        ``ExitCode=code:signal`` of ``scontrol`` or ``sacct``.
    ran : bool
        Nodes were given to it.
    reason : str
        SLURM's reason.
    """
    if state in _BY_STATE:
        ending, message = _BY_STATE[state]
        return End(ending, None, signal if 0 < signal <= _MAX_SIGNAL else None, message)
    if state == "FAILED" and not ran:
        # `sbatch --mem=999G` fails and leaves such a record, 0:1 BadConstraints.
        return End(
            Ending.SUBMIT_REFUSED, message=f"SLURM ended the job before it started ({reason or 'no reason given'})"
        )
    if signal == _NO_OUTPUT:
        return End(
            Ending.START_FAILED,
            message="SLURM could not start the batch script (0:53): the run's folder or the file for its output cannot "
            "be reached or written on the node; the shared folder must be mounted there under the same path",
        )
    if 0 < signal <= _MAX_SIGNAL:
        return End(Ending.SIGNALLED, signal=signal)
    if signal == 0 and (code != 0 or state == "COMPLETED"):
        return End(Ending.EXITED, exit_code=code)
    return End(
        Ending.LOST, message=f"SLURM reports {state} ({reason or 'no reason given'}) with exit code {code}:{signal}"
    )


_SILENT = (
    "unable to contact",
    "timed out",
    "connection",
    "connect failure",
    "zero bytes were transmitted",
    "transport endpoint",
    "unexpected message",
    "standby mode",
    "authentication",
    "munge",
    "configuration source",
    "cannot stat file",
    "temporarily",
    "unable to resolve",
    "protocol version",
)


def is_silence(words: str) -> bool:
    """Return whether a failed command's output means that the controller did not answer: no evidence."""
    lowered = words.lower()
    return any(sign in lowered for sign in _SILENT)


def is_unknown_job(words: str) -> bool:
    """Return whether the controller, which answered, does not know a job."""
    return "Invalid job id specified" in words and not is_silence(words)


_PASSED_OVER = ("invalid job id", "already completing or completed", "already finished", "not pending nor running")


def is_over(words: str) -> bool:
    """Return whether a failed ``scancel`` reports only that its jobs have ended."""
    return all(any(sign in line.lower() for sign in _PASSED_OVER) for line in words.splitlines())


_STEPD = re.compile(r"^slurmstepd\S*: error: (.*)$", re.MULTILINE)
_MEMORY = re.compile(r"oom[-_ ]kill|Exceeded job memory limit|exceeded memory limit", re.IGNORECASE)
_STRUCK = re.compile(r"\*\*\* JOB \d+ ON \S+ CANCELLED AT \S+ (.*?)\*\*\*")
_DUE_TO = (
    ("TIME LIMIT", Ending.TIMEOUT),
    ("PREEMPTION", Ending.PREEMPTED),
    ("NODE FAILURE", Ending.NODE_FAIL),
    ("JOB NOT RUNNING", Ending.NODE_FAIL),
)


def end_in_output(output: str) -> tuple[Ending, str] | None:
    """Return what slurmstepd wrote about the end of a job; it writes before it sends the signals.

    Memory comes first: SLURM counts such a job as out of memory even if its script then exits with 0. Of several
    lines the first holds, for what struck first has ended it; a requeue is no end.
    """
    lines = [match[1].strip() for match in _STEPD.finditer(output)]
    for line in lines:
        if _MEMORY.search(line):
            return Ending.OUT_OF_MEMORY, line
    for line in lines:
        struck = _STRUCK.search(line)
        if struck and "JOB REQUEUE" not in struck[1]:
            ending = next((meant for words, meant in _DUE_TO if words in struck[1]), Ending.CANCELLED_EXTERNALLY)
            return ending, line
    return None
