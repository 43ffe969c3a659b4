"""What PBS answers, and what it means.

States, substates and exit codes were recorded with OpenPBS 23.06.06; names of negative exit codes are those of its
``job.h``. Where they are not from a recording, a comment says so.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.schedulers.base import ClusterJob, ClusterJobStatus, Phase

Record = Mapping[str, Any]

_PHASES = {
    "Q": Phase.PENDING, "H": Phase.PENDING, "W": Phase.PENDING, "T": Phase.PENDING, "M": Phase.PENDING,
    "R": Phase.RUNNING, "S": Phase.RUNNING, "U": Phase.RUNNING, "B": Phase.RUNNING,
    "E": Phase.ENDING, "F": Phase.ENDED, "X": Phase.ENDED,
}  # fmt: skip
_SUCCEEDED, _TERMINATED = 92, 91  # substates; 92 is also that of a job which was never to run
_SIGNAL_BASE = 256  # 271: TERM. A shell between PBS and the script makes it 128, which the script can exit with too
_BAD_SHELL = 254
# What the server or the node's daemon puts in place of an exit code; recorded: -29.
_CODES = {
    -4: (Ending.NODE_FAIL, "the node's PBS daemon was restarted"),
    -5: (Ending.NODE_FAIL, "the node's PBS daemon was restarted"),
    -6: (Ending.NODE_FAIL, "the node's PBS daemon was restarted"),
    -11: (Ending.CANCELLED_EXTERNALLY, "it was rerun by a request outside edbjobs"),
    -12: (Ending.CANCELLED_EXTERNALLY, "it was checkpointed and ended"),
    -14: (Ending.NODE_FAIL, "one of its nodes failed"),
    -17: (Ending.CANCELLED_EXTERNALLY, "a hook of the site rejected it"),
    -19: (Ending.CANCELLED_EXTERNALLY, "a hook of the site deleted it"),
    -20: (Ending.NODE_FAIL, "the connection to its first node was lost"),
    -24: (Ending.CANCELLED_EXTERNALLY, "PBS ended it for using more cores than it had asked for"),
    -25: (Ending.CANCELLED_EXTERNALLY, "PBS ended it for using more cores than it had asked for"),
    -26: (Ending.OUT_OF_MEMORY, "PBS ended it for using more virtual memory than it had asked for"),
    -27: (Ending.OUT_OF_MEMORY, "PBS ended it for using more memory than it had asked for"),
    -28: (Ending.TIMEOUT, "PBS ended it for using more processor time than it had asked for"),
    -29: (Ending.TIMEOUT, "PBS ended it at its time limit"),
}
_EXCEEDED = {"walltime": Ending.TIMEOUT, "cput": Ending.TIMEOUT, "mem": Ending.OUT_OF_MEMORY,
             "vmem": Ending.OUT_OF_MEMORY, "pmem": Ending.OUT_OF_MEMORY, "pvmem": Ending.OUT_OF_MEMORY,
             "ncpus": Ending.CANCELLED_EXTERNALLY}  # fmt: skip
# Recorded for walltime; the other resources from the documentation of MoM.
_SAID = re.compile(r"^=>> PBS: job killed: (?P<what>\w+)\b.* exceeded .*$", re.MULTILINE)
_CGROUP = re.compile(r"^.*Cgroup mem(?:ory|sw)? limit exceeded.*$", re.MULTILINE | re.IGNORECASE)  # documentation
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE = re.compile(r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d) (\d{4})", re.ASCII)
_PLAIN_ID = re.compile(r"^Job Id: (\S+)$", re.MULTILINE)
_PLAIN_FIELD = re.compile(r"    ([A-Za-z][\w.]*) = (.*)", re.ASCII)


def document(text: str) -> Record | None:
    """Read an answer in JSON; None: it is none, as 23.06 writes where an environment holds ``+5`` or ``.5``."""
    try:
        found = json.loads(text, strict=False, object_pairs_hook=_undisputed)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _undisputed(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Drop a record that is reported twice, differently."""
    found = dict(pairs)
    if len(found) < len(pairs):
        disputed = {name for name, value in pairs if isinstance(value, dict) and found[name] != value}
        return {name: value for name, value in found.items() if name not in disputed}
    return found


def entries(answer: Record, kind: str) -> dict[str, Record]:
    """Return the records of a document: ``Jobs``, ``Queue``, ``Server`` or ``nodes``."""
    found = answer.get(kind)
    if not isinstance(found, dict):
        return {}
    return {name: record for name, record in found.items() if isinstance(record, dict)}


def plain(text: str) -> dict[str, Record]:
    """Read jobs from ``qstat -f``.

    A value may hold line breaks, as somebody's environment does. So a job counts only if it is told to its end,
    which ``project`` is near; and one that is told twice, differently, is not told.
    """
    found: dict[str, Record] = {}
    disputed = set()
    pieces = _PLAIN_ID.split(text)
    for name, block in zip(pieces[1::2], pieces[2::2], strict=True):
        record = dict(_fields(block))
        if "\n\n" not in block or "project" not in record:
            continue
        if found.setdefault(name, record) != record:
            disputed.add(name)
    return {name: record for name, record in found.items() if name not in disputed}


def _fields(block: str) -> Iterator[tuple[str, str]]:
    seen = set()
    for line in block.replace("\n\t", "").split("\n"):
        match = _PLAIN_FIELD.fullmatch(line)
        if match is not None and match[1] != "Variable_List" and match[1] not in seen:
            seen.add(match[1])
            yield match[1], match[2]


def statuses(jobs: Mapping[str, Record]) -> dict[str, ClusterJobStatus]:
    """Return the jobs' states by their records; one without a known state is left out."""
    found = {}
    for name, record in jobs.items():
        status = _status(name, record)
        if status is not None:
            found[name] = status
    return found


def _status(name: str, record: Record) -> ClusterJobStatus | None:
    state = _text(record, "job_state")
    phase = _PHASES.get(state)
    if phase is None:
        return None
    comment = _text(record, "comment")
    if phase is Phase.RUNNING and " and terminated by " in comment:
        phase = Phase.ENDING
    never, message = _waits(state, record, comment) if phase is Phase.PENDING else (False, "")
    ending, code, signal = None, None, None
    if phase is Phase.ENDED:
        ending, code, signal, message = _ending(record, comment)
    ended = moment(_text(record, "obittime")) or _number(record, "history_timestamp") or moment(_text(record, "mtime"))
    return ClusterJobStatus(
        id=name,
        name=_text(record, "Job_Name"),
        phase=phase,
        state=state,
        reason=comment,
        never=never,
        nodes=nodes(_text(record, "exec_host")) if phase is not Phase.PENDING else (),
        submit_time=moment(_text(record, "qtime")) or moment(_text(record, "ctime")),
        start_time=moment(_text(record, "stime")) if phase is not Phase.PENDING else None,
        end_time=ended if phase is Phase.ENDED else None,
        ending=ending,
        exit_code=code,
        signal=signal,
        message=message,
    )


def _waits(state: str, record: Record, comment: str) -> tuple[bool, str]:
    """Return whether a job waits for something that only a person can change, and for what."""
    holds = _text(record, "Hold_Types")
    if comment.startswith("Can Never Run"):
        return True, "nothing the cluster has is enough for it"
    if "Queue not started" in comment:
        return True, f"the queue {_text(record, 'queue')} is stopped; its administrator can start it"
    if "too many failed attempts" in comment:
        return True, "PBS has failed to start it too often and holds it"
    if state == "M":
        return False, "it was moved to another PBS server"
    if state == "H" and not _text(record, "depend") and holds not in ("", "n"):
        return True, f"it is held ({holds}); qrls releases it"
    return False, ""


def _ending(record: Record, comment: str) -> tuple[Ending, int | None, int | None, str]:
    """Return how a finished job ended: success only if all three of PBS's values say so."""
    code, substate = _whole(record, "Exit_status"), _whole(record, "substate")
    ran = bool(_text(record, "stime"))
    if code is None:
        if substate == _TERMINATED:
            return Ending.CANCELLED_EXTERNALLY, None, None, "" if ran else "it was deleted before it started"
        if ran:
            return Ending.LOST, None, None, "PBS recorded no exit code of it"
        return Ending.NEVER_RAN, None, None, "PBS gave it up before it started, as when a job it depends on has failed"
    if code < 0:
        ending, why = _CODES.get(code, (Ending.START_FAILED, "PBS could not start it"))
        return ending, None, None, f"{why} (exit code {code})"
    return _by_code(code, substate, comment)


def _by_code(code: int, substate: int | None, comment: str) -> tuple[Ending, int | None, int | None, str]:
    signal = code - _SIGNAL_BASE if code > _SIGNAL_BASE else None
    left = code if signal is None else None
    exceeded = re.search(r"and exceeded resource (\w+)", comment)
    if exceeded is not None:
        return _EXCEEDED.get(exceeded[1], Ending.CANCELLED_EXTERNALLY), left, signal, ""
    if substate == _TERMINATED or " and terminated" in comment:
        return Ending.CANCELLED_EXTERNALLY, left, signal, ""
    if signal is not None:
        return Ending.SIGNALLED, None, signal, ""
    if code == 0 and substate != _SUCCEEDED:
        return Ending.LOST, None, None, f"PBS gives exit code 0 and yet no success (substate {substate})"
    hint = "PBS gives this code too when the script's shell is missing on the node" if code == _BAD_SHELL else ""
    return Ending.EXITED, code, None, hint


def end_in_output(output: str) -> tuple[Ending, str] | None:
    """Return what PBS wrote into a job's output about its end."""
    for match in reversed(list(_SAID.finditer(output))):
        return _EXCEEDED.get(match["what"], Ending.CANCELLED_EXTERNALLY), match[0].strip()
    cgroup = _CGROUP.search(output)
    return None if cgroup is None else (Ending.OUT_OF_MEMORY, cgroup[0].strip())


def cluster_job(name: str, record: Record) -> ClusterJob:
    """Return a job of any user."""
    asked = record.get("Resource_List")
    where = _text(record, "exec_host")
    return ClusterJob(
        id=name,
        name=_text(record, "Job_Name"),
        user=_text(record, "Job_Owner").partition("@")[0],
        partition=_text(record, "queue"),
        state=_text(record, "job_state"),
        reason=_text(record, "comment"),
        node_count=len(nodes(where)) or _asked(record, asked, "nodect"),
        core_count=_asked(record, asked, "ncpus"),
        nodes=tuple(nodes(where)),
        start_time=moment(_text(record, "stime")),
    )


def _asked(record: Record, asked: object, name: str) -> int:
    found = _whole(asked, name) if isinstance(asked, dict) else _whole(record, f"Resource_List.{name}")
    return found or 0


def nodes(exec_host: str) -> tuple[str, ...]:
    """Read ``node1/0*4+node2/0*4``."""
    return tuple(dict.fromkeys(part.partition("/")[0] for part in exec_host.split("+") if part))


def moment(text: str) -> float | None:
    """Read a time as ``ctime`` writes it, in the zone of this host; None: it is none."""
    match = _DATE.fullmatch(text)
    if match is None or match[1] not in _MONTHS:
        return None
    month = _MONTHS.index(match[1]) + 1
    day, hour, minute, second, year = (int(part) for part in match.groups()[1:])
    try:
        return time.mktime((year, month, day, hour, minute, second, 0, 0, -1))
    except (OverflowError, ValueError):
        return None


def _text(record: Record, name: str) -> str:
    value = record.get(name, "")
    return value if isinstance(value, str) else str(value)


def _number(record: Record, name: str) -> float | None:
    value = record.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _whole(record: Mapping[str, object], name: str) -> int | None:
    value = record.get(name)
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value, re.ASCII):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
