"""A call of the table, and what must come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OK = "OK"
BAD = "INVALID_ARGUMENT"
STATE = "FAILED_PRECONDITION"
RANGE = "OUT_OF_RANGE"
NONE = "NOT_FOUND"
LATER = "UNIMPLEMENTED"


@dataclass(frozen=True)
class Case:
    """One call and what must come of it.

    Attributes
    ----------
    name, rpc : str
        What it is for; ``Service.Method``.
    request : mapping
        In proto3's JSON. A text ``$name`` in it stands for a value saved before, or one of the service's own.
    code, reason : str
        Status and reason that must be answered.
    fields : tuple of str
        Fields the error must name.
    metadata : mapping
        What the error's metadata must have.
    expect : mapping
        What the first message must have, other fields apart.
    save : mapping
        Names for values of the first message: name to dotted path.
    until, deadline, token
        As in the package's text.
    same : bool
        False: how many messages come, and what they hold, is chance; they are not compared between clients.
    """

    name: str
    rpc: str
    request: Mapping[str, Any] = field(default_factory=dict)
    code: str = OK
    reason: str = ""
    fields: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    expect: Mapping[str, Any] = field(default_factory=dict)
    save: Mapping[str, str] = field(default_factory=dict)
    until: str = ""
    deadline: float = 20.0
    token: str = ""
    same: bool = True


def config(project: str = "$project", **values: Any) -> dict[str, Any]:
    """Make the config of a short solve."""
    return {"projectPath": project, "environment": {"ANS_EDBJOBS_DEMO": "seconds=0.2"}, **values}


def uid(name: str) -> dict[str, Any]:
    """Make the request of a call about the job with this uid."""
    return {"job": {"uid": name}}


def named(name: str) -> dict[str, Any]:
    """Make the request of a call about the newest job with this id."""
    return {"job": {"id": name}}


def refused(name: str, reason: str, *fields: str, code: str = BAD, **values: Any) -> Case:
    """Make a submit that is refused."""
    return Case(f"submit refused: {name}", "JobsService.SubmitJob", {"config": config(**values)}, code, reason, fields)
