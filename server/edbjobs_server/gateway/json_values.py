"""Values of the contract's messages as the documented JSON values.

Times are naive local ISO 8601, as documented; each has its UTC twin, ``<name>_utc``. An unset value is null.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from functools import cache
from typing import Any

from edbjobs.v1 import convergence_pb2, job_pb2, job_state_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from edbjobs_server.contract.codec import seconds
from edbjobs_server.gateway.words import END_REASONS, PHASES, state_word

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
    return state_word(job.state)


def return_code(ended: job_pb2.Job | job_pb2.Attempt) -> int | None:
    """Return the documented return code of a process: its exit code, or the negative signal number."""
    outcome = ended.outcome
    if outcome.HasField("exit_code"):
        return outcome.exit_code
    return -outcome.signal if outcome.HasField("signal") else None


def reason_of(ended: job_pb2.Job | job_pb2.Attempt) -> str | None:
    """Return the reason code of the end of a job or an attempt; None before the end."""
    return END_REASONS.optional(ended.outcome.reason)


def message_of(job: job_pb2.Job) -> str:
    """Return the documented message: how the job ended, or why it waits for its next attempt."""
    if job.waiting.reason == job_state_pb2.WAITING_REASON_BACK_OFF:
        return job.waiting.message
    return job.outcome.message


def mib(size: int) -> int:
    """Return a size in bytes as MiB, rounded up."""
    return -(-size // (1 << 20))


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
        "cpu_seconds": seconds(attempt.cpu_duration),
        "max_rss_bytes": attempt.peak_memory_bytes,
        "message": attempt.outcome.message,
    }


def progress_json(progress: convergence_pb2.JobProgress) -> Json:
    """Return the progress of a solve, written likewise."""
    last = progress.last_pass
    return {
        "setup": f"{progress.setup} : {progress.sweep}" if progress.sweep else progress.setup,
        "adaptive_pass": progress.current_pass if progress.HasField("current_pass") else last.number,
        "max_passes": progress.max_passes,
        "delta_s": last.delta if last.HasField("delta") else None,
        "target_delta_s": progress.target_delta if progress.HasField("target_delta") else None,
        "elements": last.elements,
        "frequencies_solved": progress.frequencies_solved,
        "frequencies_total": progress.frequencies_total,
        "fraction": progress.fraction if progress.HasField("fraction") else None,
        "phase": PHASES.word(progress.phase),
    }
