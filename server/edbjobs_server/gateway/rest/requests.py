"""The documented requests as messages of the contract.

Only what the types of the contract cannot express is refused here; the job manager validates everything else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from aiohttp import web
from edbjobs.v1 import job_state_pb2, jobs_messages_pb2
from edbjobs.v1.job_ref_pb2 import JobRef
from pydantic import ValidationError

from edbjobs_server.contract.request_check import too_large
from edbjobs_server.core.errors import Refused
from edbjobs_server.gateway.documented.config import HFSSSimulationConfig, SchedulerType, field_errors
from edbjobs_server.gateway.documented.translation import documented_refusal, to_job_config
from edbjobs_server.gateway.http_errors import HttpRefused
from edbjobs_server.gateway.json_values import Json
from edbjobs_server.gateway.words import PENDING, STATES
from edbjobs_server.manager.job_manager import JobManager
from edbjobs_server.manager.validation import Submission, validate

MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_NAME = 255
_INT32 = 2**31


async def body_of(request: web.Request) -> Json:
    """Return the JSON object in a request; an empty body is an empty object.

    Raises
    ------
    Refused
        NOT_JSON, TOO_LARGE or INVALID_REQUEST.
    """
    try:
        data = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large(MAX_BODY_BYTES) from None
    if not data:
        return {}
    if request.content_type != "application/json":
        raise HttpRefused(
            "NOT_JSON", f"expected a body of `Content-Type: application/json`, got {request.content_type}"
        )
    try:
        found = _DECODER.decode(data.decode(json.detect_encoding(data), "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise Refused("INVALID_REQUEST", f"the body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refused("INVALID_REQUEST", f"expected a JSON object in the body, got {type(found).__name__}")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)  # `json.loads` would make one for each call


def program_of(body: Json) -> str:
    """Return the solver that a submission names; it runs only if it is a solver of the service."""
    config = body.get("config")
    program = config.get("ansys_edt_path") if isinstance(config, dict) else None
    return program if isinstance(program, str) else ""


def submit_request(body: Json, request_id: str, scheduler: str, known_program: bool) -> tuple[Submission, list[str]]:
    """Return the request of a documented submission, and warnings for the user.

    Parameters
    ----------
    body : dict
        ``{"config": {...}, "priority": 0}``, and as /api/submit has it ``user``, ``machine_nodes`` and
        ``batch_options`` beside the configuration, which they override.
    request_id : str
        Idempotency key; may be empty.
    scheduler : str
        The detected scheduler: used by a job that names none.
    known_program : bool
        Whether the program that it names, if any, is a solver of this service.

    Returns
    -------
    tuple of (Submission, list of str)
        The request and the warnings.

    Raises
    ------
    Refused
        INVALID_JOB, INVALID_PRIORITY or INVALID_REQUEST.
    """
    values = _config_values(body)
    warnings: list[str] = []
    program = program_of(body)
    if program and not known_program:
        values["ansys_edt_path"] = ""
        warnings.append(f"{program} is not a solver of this service and was ignored: the service chooses the solver")
    try:
        config = HFSSSimulationConfig.from_dict(values)
    except ValidationError as error:
        wrong = field_errors(error, "config")
        text = "; ".join(f"{field}: {what}" for field, what in wrong.items())
        raise Refused("INVALID_JOB", f"the job is not valid: {text}", fields=wrong) from None
    named = config.scheduler_type is not SchedulerType.NONE
    job_config = to_job_config(config, str(config.scheduler_type) if named else scheduler)
    request = jobs_messages_pb2.SubmitJobRequest(
        request_id=text_of(request_id, "Idempotency-Key", 64),
        job_id=config.jobid,
        config=job_config.to_message(),
        priority=priority_of(body, default=0),
        user=config.user,
    )
    try:
        return validate(request, job_config), warnings
    except Refused as refused:
        raise documented_refusal(refused) from None


def _config_values(body: Json) -> Json:
    config = body.get("config")
    if not isinstance(config, dict):
        raise Refused(
            "INVALID_REQUEST",
            'expected the configuration in the body: {"config": {"project_path": ...}}',
            fields={"config": "is required"},
        )
    values = dict(config)
    for name, field in (("user", "user"), ("machine_nodes", "machine_nodes"), ("batch_options", "layout_options")):
        if body.get(name):
            values[field] = body[name]
    explicit = values.get("explicit", [])
    if not isinstance(explicit, list) or not all(isinstance(name, str) for name in explicit):
        raise Refused(
            "INVALID_REQUEST", "config.explicit: expected a list of names", fields={"config.explicit": "wrong type"}
        )
    return values


def priority_of(body: Json, default: int | None = None) -> int:
    """Return the priority in a body.

    Raises
    ------
    Refused
        INVALID_PRIORITY.
    """
    value = body.get("priority", default)
    if isinstance(value, bool) or not isinstance(value, int) or not -_INT32 <= value < _INT32:
        what = "expected an integer, for example 5"
        raise Refused("INVALID_PRIORITY", f"priority: {what}", fields={"priority": what})
    return value


def job_filter(query: Mapping[str, str], states: Sequence[str]) -> jobs_messages_pb2.JobFilter:
    """Return the filter of `GET /jobs`.

    ``pending`` is a documented word for a state that no job is in: alone, it finds nothing.

    Raises
    ------
    Refused
        INVALID_REQUEST.
    """
    user, batch = text_of(query.get("user", ""), "user"), text_of(query.get("batch", ""), "batch")
    found = jobs_messages_pb2.JobFilter(users=[user] if user else [], batches=[batch] if batch else [])
    words = [part.strip().lower() for text in states for part in text.split(",") if part.strip()]
    for word in words:
        state = STATES.number(word)
        if state is None and word != PENDING:
            known = ", ".join(STATES.all(PENDING))
            raise Refused(
                "INVALID_REQUEST",
                f"status: expected one of {known}, got {word!r}",
                fields={"status": f"expected one of {known}"},
            )
        if state is not None:
            found.states.append(state)  # type: ignore[arg-type]
    if words and not found.states:  # nobody is pending: ask for what nobody is
        found.states.append(job_state_pb2.JOB_STATE_QUEUED)
        found.ended = True
    return found


def number_of(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """Return a number of the query string.

    Raises
    ------
    Refused
        INVALID_REQUEST.
    """
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > most:
        what = f"expected an integer from 0 to {most}"
        raise Refused("INVALID_REQUEST", f"{name}: {what}", fields={name: what})
    return int(text)


def name_of(request: web.Request) -> str:
    """Return the id or uid of a job in the path.

    Raises
    ------
    Refused
        JOB_NOT_FOUND for a name that no job can have.
    """
    name = request.match_info["job_id"]
    if not _encodable(name) or len(name) > MAX_NAME:
        raise Refused("JOB_NOT_FOUND", "there is no job of that name; names have at most 63 characters")
    return name


async def job_of(manager: JobManager, request: web.Request) -> JobRef:
    """Return the job in the path: of the form of a uid, that uid if there is such a job; else an id."""
    return await manager.ref_of(name_of(request))


def text_of(value: Any, field: str, longest: int = MAX_NAME) -> str:
    """Return a text of a request, checked.

    Raises
    ------
    Refused
        INVALID_REQUEST.
    """
    if not isinstance(value, str) or len(value) > longest or not _encodable(value):
        what = f"expected a text of at most {longest} characters"
        raise Refused("INVALID_REQUEST", f"{field}: {what}", fields={field: what})
    return value


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return "\0" not in text
