"""Values of the contract's messages as the documented JSON values.

Times are naive local ISO 8601, as documented; each has its UTC twin, ``<name>_utc``. An unset value is null.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from functools import cache
from typing import Any

from edbjobs._enums import EndReason, Evidence, JobStatus, Word, from_number, optional_from_number
from edbjobs.v1 import job_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from edbjobs_server.contract.codec import seconds

Json = dict[str, Any]

_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)  # `json.dumps` would make one for each call


def dumps(value: Any) -> str:
    """Encode as JSON; NaN and infinity, which JSON does not have, raise ValueError."""
    return _ENCODER.encode(value)


def fields_of(message: Message) -> Json:
    """Return the fields of a message by name: times as text, twice; None for an optional field that is not set."""
    found: Json = {}
    for name, optional, is_time in _fields(type(message)):  # type: ignore[arg-type]
        value = getattr(message, name) if not optional or message.HasField(name) else None
        found |= times(**{name: value}) if is_time else {name: value}
    return found


@cache
def _fields(kind: type[Message]) -> list[tuple[str, bool, bool]]:
    time = Timestamp.DESCRIPTOR
    return [(field.name, field.has_presence, field.message_type is time) for field in kind.DESCRIPTOR.fields]


def times(**stamps: Timestamp | None) -> Json:
    """Return each time twice: naive local, and UTC."""
    found: Json = {}
    for name, stamp in stamps.items():
        at = seconds(stamp) if stamp is not None else None
        found[name] = None if at is None else datetime.fromtimestamp(at).isoformat()
        found[f"{name}_utc"] = None if at is None else datetime.fromtimestamp(at, timezone.utc).isoformat()
    return found


def status_of(job: job_pb2.Job) -> str:
    """Return the state as the documented word."""
    return from_number(JobStatus, job.state).value


def return_code(ended: job_pb2.Job | job_pb2.Attempt) -> int | None:
    """Return the documented return code of a process: its exit code, or the negative signal number."""
    if ended.HasField("exit_code"):
        return ended.exit_code
    return -ended.signal if ended.HasField("signal") else None


def reason_of(ended: job_pb2.Job | job_pb2.Attempt) -> str | None:
    """Return the reason code of the end of a job or an attempt; None before the end."""
    return _word(optional_from_number(EndReason, ended.reason))


def evidence_of(job: job_pb2.Job) -> str | None:
    """Return the evidence for the end of a job; None before the end."""
    return _word(optional_from_number(Evidence, job.evidence))


def _word(word: Word | None) -> str | None:
    return None if word is None else str(word.value)


def attempt_json(attempt: job_pb2.Attempt) -> Json:
    """Return an attempt, in half the time that its model takes: a list may have 100,000 of them."""
    return {
        "number": attempt.number,
        **times(
            reserve_time=attempt.reserve_time if attempt.HasField("reserve_time") else None,
            start_time=attempt.start_time if attempt.HasField("start_time") else None,
            end_time=attempt.end_time if attempt.HasField("end_time") else None,
        ),
        "nodes": list(attempt.nodes),
        "pid": attempt.pid or None,
        "scheduler_job_id": attempt.scheduler_job_id or None,
        "reason": reason_of(attempt),
        "return_code": return_code(attempt),
        "cpu_seconds": attempt.cpu_seconds,
        "max_rss_bytes": attempt.max_rss_bytes,
        "message": attempt.message,
    }


def progress_json(progress: job_pb2.JobProgress) -> Json:
    """Return the progress of a solve, written likewise."""
    return {
        "setup": progress.setup,
        "adaptive_pass": progress.adaptive_pass,
        "max_passes": progress.max_passes,
        "delta_s": progress.delta_s if progress.HasField("delta_s") else None,
        "target_delta_s": progress.target_delta_s if progress.HasField("target_delta_s") else None,
        "elements": progress.elements,
        "frequencies_solved": progress.frequencies_solved,
        "frequencies_total": progress.frequencies_total,
        "fraction": progress.fraction if progress.HasField("fraction") else None,
        "phase": progress.phase,
    }
