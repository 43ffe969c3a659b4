"""Jobs as the documented JSON text, written directly from the messages: a list may have 100,000 of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from functools import cache, lru_cache
from json.encoder import encode_basestring_ascii as quoted
from math import modf
from typing import Any

from edbjobs._enums import EndReason, Evidence, JobStatus, WaitingReason, from_number, optional_from_number
from edbjobs.v1 import job_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from edbjobs_server.contract.codec import seconds
from edbjobs_server.gateway.json_values import attempt_json, dumps, progress_json, return_code, times
from edbjobs_server.gateway.rest.config_text import config_text, written_text


def job_text(job: job_pb2.Job, written: str = "") -> str:
    """Return the JSON text of a job.

    Parameters
    ----------
    job : Job
        Message of the job.
    written : str, optional
        From `written_text`: members that the configurations of a list share.
    """
    config = job.config
    return (
        f'{{"id":{quoted(job.id)},"user":{quoted(job.user)},'
        f'"config":{config_text(config, job.id, job.user, written or written_text())},'
        f'"status":{_status(job.state)},"return_code":{_return_code(job)},'
        f'"scheduler_job_id":{_optional(job.scheduler_job_id)},"priority":{job.priority},"uid":{quoted(job.uid)},'
        f'"revision":{job.revision},"attempt":{job.attempt},{_times(job)},'
        f'"held":{_bool(job.held)},"waiting_reason":{_waiting(job.waiting_reason)},'
        f'"waiting_detail":{quoted(job.waiting_detail)},"jobs_before":{job.jobs_before},"reason":{_reason(job.reason)},'
        f'"signal":{job.signal if job.HasField("signal") else "null"},"evidence":{_evidence(job.evidence)},'
        f'"outcome_unknown":{_bool(job.outcome_unknown)},"message":{quoted(job.message)},'
        f'"warnings":{_list(job.warnings)},"attempts":{_attempts(job)},"retry_of":{_optional(job.retry_of)},'
        f'"batch":{_optional(config.batch)},"labels":{dumps(dict(config.labels)) if config.labels else "{}"},'
        f'"executor":{quoted(job.executor)},"solver_version":{quoted(job.solver_version)},"demo":{_bool(job.demo)},'
        f'"cores":{job.cores},"memory_mib":{job.memory_mib},"progress":{_progress(job)}}}'
    )


def jobs_text(jobs: Iterable[job_pb2.Job]) -> str:
    """Return the JSON texts of jobs, separated by commas."""
    written = written_text()
    return ",".join([job_text(job, written) for job in jobs])


def _times(job: job_pb2.Job) -> str:
    return ",".join([_time(name, getattr(job, name)) if job.HasField(name) else text for name, text in _NO_TIMES])


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


def _optional(text: str) -> str:
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
    return quoted(from_number(JobStatus, number).value)


def _word(kind: Any) -> Callable[[int], str]:
    @cache
    def write(number: int) -> str:
        found = optional_from_number(kind, number)
        return "null" if found is None else quoted(found.value)

    return write


_waiting, _reason, _evidence = _word(WaitingReason), _word(EndReason), _word(Evidence)
_NO_TIMES: Sequence[tuple[Any, str]] = [
    (name, f'"{name}":null,"{name}_utc":null')
    for name in ("start_time", "end_time", "create_time", "cancel_time", "not_before")
]
