"""Jobs as the documented JSON text, written from what is set in the message: most of a waiting job is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from edbjobs._enums import EndReason, Evidence, JobStatus, WaitingReason, from_number, optional_from_number
from edbjobs.v1 import job_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from edbjobs_server.gateway.config_text import config_text, written_text
from edbjobs_server.gateway.shapes import attempt_json, dumps, progress_json, times

_TIMES = ("start_time", "end_time", "create_time", "cancel_time", "not_before")
# What the members are where the message has nothing, in the order of the text.
_UNSET: Mapping[str, Any] = {
    "id": "",
    "user": "",
    "config": None,
    "status": JobStatus.UNKNOWN.value,
    "return_code": None,
    "scheduler_job_id": None,
    "priority": 0,
    "uid": "",
    "revision": 0,
    "attempt": 0,
    **times(**dict.fromkeys(_TIMES)),
    "held": False,
    "waiting_reason": None,
    "waiting_detail": "",
    "jobs_before": 0,
    "reason": None,
    "signal": None,
    "evidence": None,
    "outcome_unknown": False,
    "message": "",
    "warnings": [],
    "attempts": [],
    "retry_of": None,
    "batch": None,
    "labels": {},
    "executor": "",
    "solver_version": "",
    "demo": False,
    "cores": 0,
    "memory_mib": 0,
    "progress": None,
}


def job_text(job: job_pb2.Job, written: str = "") -> str:
    """Write a job.

    Parameters
    ----------
    job : Job
        As the manager answers it.
    written : str, optional
        From `written_text`: what the jobs of a list have in common.
    """
    texts = dict(_UNSET_TEXTS)
    for field, value in job.ListFields():
        name = field.name
        write = _WRITE.get(name)
        if write is not None:
            texts[name] = f'"{name}":{write(value)}'
        elif name in _TIMES:
            _write_time(texts, name, value)
    if job.HasField("exit_code"):
        texts["return_code"] = f'"return_code":{job.exit_code}'
    elif job.HasField("signal"):
        texts["return_code"] = f'"return_code":{-job.signal}'
    config = job.config
    texts["status"] = f'"status":{_status(job.state)}'
    texts["config"] = f'"config":{config_text(config, job.id, job.user, written or written_text())}'
    if config.batch:
        texts["batch"] = f'"batch":{quoted(config.batch)}'
    if config.labels:
        texts["labels"] = f'"labels":{dumps(dict(config.labels))}'
    return f"{{{','.join(texts.values())}}}"


def jobs_text(jobs: Iterable[job_pb2.Job]) -> str:
    """Write jobs, with a comma between each two."""
    written = written_text()
    return ",".join([job_text(job, written) for job in jobs])


def _write_time(texts: dict[str, str], name: str, stamp: Timestamp) -> None:
    for key, value in times(**{name: stamp}).items():
        texts[key] = f'"{key}":"{value}"'


def _true(_: bool) -> str:
    return "true"  # an unset one is false


@cache
def _status(number: int) -> str:
    return quoted(from_number(JobStatus, number).value)


def _word(kind: Any) -> Callable[[int], str]:
    @cache
    def write(number: int) -> str:
        found = optional_from_number(kind, number)
        return "null" if found is None else quoted(found.value)

    return write


_WRITE: Mapping[str, Callable[[Any], str]] = {
    **dict.fromkeys(("id", "uid", "user", "scheduler_job_id", "waiting_detail", "message", "retry_of"), quoted),
    **dict.fromkeys(("executor", "solver_version"), quoted),
    **dict.fromkeys(("priority", "revision", "attempt", "jobs_before", "signal", "cores", "memory_mib"), str),
    **dict.fromkeys(("held", "outcome_unknown", "demo"), _true),
    "waiting_reason": _word(WaitingReason),
    "reason": _word(EndReason),
    "evidence": _word(Evidence),
    "warnings": lambda warnings: dumps(list(warnings)),
    "attempts": lambda attempts: dumps([attempt_json(attempt) for attempt in attempts]),
    "progress": lambda progress: dumps(progress_json(progress)),
}
_UNSET_TEXTS = {name: f'"{name}":{dumps(value)}' for name, value in _UNSET.items()}
