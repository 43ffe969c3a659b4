"""Jobs as the documented JSON text, written directly from the messages: a list may have 100,000 of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from functools import cache, lru_cache
from json.encoder import encode_basestring_ascii as quoted
from math import modf
from typing import Any

from edbjobs.v1 import job_pb2, job_state_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from edbjobs_server.contract.codec import seconds
from edbjobs_server.gateway.json_values import (
    attempt_json,
    dumps,
    message_of,
    mib,
    progress_json,
    reason_of,
    return_code,
    times,
)
from edbjobs_server.gateway.rest.config_text import config_text, written_text
from edbjobs_server.gateway.words import WAITING_REASONS, evidence_word, state_word


def job_text(job: job_pb2.Job, written: str = "") -> str:
    """Return the JSON text of a job.

    Parameters
    ----------
    job : Job
        Message of the job.
    written : str, optional
        From `written_text`: members that the configurations of a list share.
    """
    config, waiting, outcome, reserved = job.config, job.waiting, job.outcome, job.reservation
    return (
        f'{{"id":{quoted(job.id)},"user":{quoted(job.user)},'
        f'"config":{config_text(config, job.id, job.user, written or written_text())},'
        f'"status":{_status(job.state)},"return_code":{_return_code(job)},'
        f'"scheduler_job_id":{_optional(job.scheduler_job_id)},"priority":{job.priority},"uid":{quoted(job.uid)},'
        f'"revision":{job.revision},"attempt":{job.attempt_count},{_times(job)},'
        f'"held":{_bool(job.held and not job.HasField("end_time"))},"waiting_reason":{_waiting(waiting.reason)},'
        f'"waiting_detail":{quoted(waiting.message)},"jobs_before":{waiting.jobs_before},'
        f'"reason":{_optional(reason_of(job))},"signal":{outcome.signal if outcome.HasField("signal") else "null"},'
        f'"evidence":{_optional(evidence_word(job))},'
        f'"outcome_unknown":{_bool(outcome.evidence == job_state_pb2.EVIDENCE_NONE)},'
        f'"message":{quoted(message_of(job))},'
        f'"warnings":{_list(job.warnings)},"attempts":{_attempts(job)},"retry_of":{_optional(job.retry_of)},'
        f'"batch":{_optional(config.batch)},"labels":{dumps(dict(config.labels)) if config.labels else "{}"},'
        f'"executor":{quoted(job.scheduler)},"solver_version":{quoted(job.aedt_version)},"demo":{_bool(job.demo)},'
        f'"cores":{reserved.cores},"memory_mib":{mib(reserved.memory_bytes)},"progress":{_progress(job)}}}'
    )


def jobs_text(jobs: Iterable[job_pb2.Job]) -> str:
    """Return the JSON texts of jobs, separated by commas."""
    written = written_text()
    return ",".join([job_text(job, written) for job in jobs])


def _times(job: job_pb2.Job) -> str:
    texts = [_time(name, getattr(job, field)) if job.HasField(field) else _NO_TIME[name] for name, field in _TIMES]
    delayed = job.waiting.HasField("next_attempt_time")
    next_attempt = _time(_NEXT, job.waiting.next_attempt_time) if delayed else _NO_TIME[_NEXT]
    return ",".join([*texts, next_attempt])


def _time(name: Any, stamp: Timestamp) -> str:
    """Return a time twice, as `times` does."""
    part, whole = modf(seconds(stamp))
    minute, second = divmod(int(whole), 60)
    micro = round(part * 1e6)
    if not 0 <= micro < 1_000_000:  # rounded up to the next second, or before 1970
        return dumps(times(**{name: stamp}))[1:-1]
    local, utc = _minute(minute)
    rest = f"{second:02}.{micro:06}" if micro else f"{second:02}"
    return f'"{name}":"{local}{rest}","{name}_utc":"{utc}{rest}+00:00"'


@lru_cache(1024)
def _minute(minute: int) -> tuple[str, str]:
    """Return a minute in local time and in UTC, without seconds: most times of a list share it with others."""
    at = minute * 60
    return datetime.fromtimestamp(at).isoformat()[:17], datetime.fromtimestamp(at, timezone.utc).isoformat()[:17]


def _return_code(job: job_pb2.Job) -> int | str:
    found = return_code(job)
    return "null" if found is None else found


def _optional(text: str | None) -> str:
    return quoted(text) if text else "null"


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _list(texts: Sequence[str]) -> str:
    return dumps(list(texts)) if texts else "[]"


def _attempts(job: job_pb2.Job) -> str:
    return dumps([attempt_json(attempt) for attempt in job.attempts]) if job.attempts else "[]"


def _progress(job: job_pb2.Job) -> str:
    return dumps(progress_json(job.progress)) if job.HasField("progress") else "null"


@cache
def _status(number: int) -> str:
    return quoted(state_word(number))


@cache
def _waiting(number: int) -> str:
    return _optional(WAITING_REASONS.optional(number))


_NEXT = "not_before"
# Documented name, and the field.
_TIMES: Sequence[tuple[str, Any]] = [
    ("start_time", "start_time"),
    ("end_time", "end_time"),
    ("create_time", "create_time"),
    ("cancel_time", "cancel_request_time"),
]
_NO_TIME = {name: f'"{name}":null,"{name}_utc":null' for name in (*dict(_TIMES), _NEXT)}
