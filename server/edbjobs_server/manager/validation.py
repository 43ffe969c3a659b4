"""Checks of a request that need nothing but its text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from edbjobs._config_types import ProjectPath
from edbjobs.config import JobConfig, field_errors
from edbjobs.v1 import job_config_pb2, jobs_messages_pb2
from pydantic import TypeAdapter, ValidationError

from edbjobs_server.contract.codec import embedded
from edbjobs_server.core.errors import Refused

UID = re.compile(r"[0-9A-Fa-f]{32}")
JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
MAX_GRACE_SECONDS = 3600.0
MAX_REQUEST_BYTES = 1 << 20
MAX_REQUEST_ID = 64
LATEST_SECONDS = 253_402_300_799  # the end of the year 9999: the last time that calendars and timestamps have
_CONTROL = re.compile(r"[\x00-\x1f]")
_PROJECT_PATH = job_config_pb2.JobConfig.PROJECT_PATH_FIELD_NUMBER
_PATH: TypeAdapter[str] = TypeAdapter(ProjectPath)
_MOST_KEPT_BYTES = 2_048  # of a configuration that is kept for the next request
_ANY_PATH = "/p.aedt"


@dataclass(frozen=True, slots=True)
class Submission:
    """A request whose configuration has been validated; nothing after it validates the configuration again.

    Attributes
    ----------
    request : SubmitJobRequest
        As it came.
    config : JobConfig
        Its configuration. The path in it may be that of an equal configuration.
    project_path : str
        Path of its project.
    data : bytes
        Its configuration, serialized deterministically.
    """

    request: jobs_messages_pb2.SubmitJobRequest
    config: JobConfig
    project_path: str
    data: bytes


def validate(request: jobs_messages_pb2.SubmitJobRequest, config: JobConfig | None = None) -> Submission:
    """Validate a request.

    Most jobs of a sweep are alike but for their project, and to make a whole model takes most of the time of a draft:
    models of earlier requests are used again.

    Parameters
    ----------
    request : SubmitJobRequest
        As it came.
    config : JobConfig, optional
        The model that its configuration was made from, where the endpoint has one: it is not validated again.

    Raises
    ------
    Refused
        INVALID_JOB, with everything that is wrong; INVALID_REQUEST if the configuration is right.
    """
    data = request.config.SerializeToString(deterministic=True)
    wrong = _wrong(request)
    path = request.config.project_path
    try:
        if config is None:
            config, path = _known(path, data) or _new(request.config)
    except ValidationError as error:
        wrong.update({f"config.{field}": text for field, text in field_errors(error).items()})
    if wrong or config is None:
        text = "; ".join(f"{field}: {what}" for field, what in wrong.items())
        text = f"the job is not valid: {text}"
        if any(field.partition(".")[0] == "config" for field in wrong):
            raise Refused("INVALID_JOB", text, fields=wrong)
        raise Refused("INVALID_REQUEST", text, fields=wrong)
    return Submission(request, config, path, data)


def _new(message: job_config_pb2.JobConfig) -> tuple[JobConfig, str]:
    config = JobConfig.from_message(message)
    return config, config.project_path


def _wrong(request: jobs_messages_pb2.SubmitJobRequest) -> dict[str, str]:
    """Return what is wrong with a request beside its configuration's model."""
    wrong: dict[str, str] = {}
    if request.job_id and not JOB_ID.fullmatch(request.job_id):
        wrong["job_id"] = "1 to 63 letters, digits, '.', '_' or '-', the first a letter or a digit"
    elif UID.fullmatch(request.job_id):
        wrong["job_id"] = "32 hexadecimal digits are the form of a uid"
    if len(request.request_id) > MAX_REQUEST_ID:
        wrong["request_id"] = f"at most {MAX_REQUEST_ID} characters"
    if len(request.user) > 255 or _CONTROL.search(request.user):
        wrong["user"] = "at most 255 characters, none of them a control character"
    if request.ByteSize() > MAX_REQUEST_BYTES:  # one event holds the whole job, and must fit a client's message
        wrong["config"] = f"larger than {MAX_REQUEST_BYTES} bytes"
    if request.config.not_before_time.seconds > LATEST_SECONDS:
        wrong["config.not_before_time"] = "not after the year 9999"
    return wrong


def _known(path: str, config: bytes) -> tuple[JobConfig, str] | None:
    """Return the model of a configuration that differs from an earlier one in its path at most; None: validate it.

    No check of the model looks at the path together with another field.
    """
    head = embedded(_PROJECT_PATH, path.encode())  # the field of the lowest number comes first
    if len(config) - len(head) > _MOST_KEPT_BYTES or not config.startswith(head):
        return None
    try:
        return _model(config[len(head) :]), _PATH.validate_python(path)
    except ValidationError:
        return None  # validate all of it, to report everything that is wrong


@lru_cache(256)
def _model(rest: bytes) -> JobConfig:
    message = job_config_pb2.JobConfig.FromString(rest)
    message.project_path = _ANY_PATH
    return JobConfig.from_message(message)
