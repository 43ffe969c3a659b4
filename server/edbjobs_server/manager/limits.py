"""Changes of limits: all that a request names, or none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from edbjobs.v1 import resources_service_pb2

from edbjobs_server.contract import codec
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.limits import MAXIMUM, Limits, UserLimits


def changed(old: Limits, request: resources_service_pb2.UpdateLimitsRequest) -> Limits:
    """Return the limits after a request.

    Parameters
    ----------
    old : Limits
        Limits in force.
    request : UpdateLimitsRequest
        New values and the mask of the fields to change; without a mask, the fields that are set.

    Raises
    ------
    Refused
        INVALID_LIMITS, naming every field that is wrong.
    """
    paths = list(request.update_mask.paths) or [field.name for field, _ in request.limits.ListFields()]
    new = codec.limits_from_message(request.limits)
    wrong = {path: "no such limit" for path in paths if path not in Limits.__dataclass_fields__}
    values: dict[str, Any] = {path: getattr(new, path) for path in paths if path not in wrong}
    result = replace(old, **values)
    wrong.update(_wrong(result))
    if wrong:
        text = "; ".join(f"{field}: {what}" for field, what in wrong.items())
        raise Refused("INVALID_LIMITS", f"no limit was changed: {text}", fields=wrong)
    return result


def _wrong(limits: Limits) -> dict[str, str]:
    """Return what is wrong with each limit, by the type of its default and by its `MAXIMUM`."""
    wrong: dict[str, str] = {}
    for field in fields(limits):
        value = getattr(limits, field.name)
        maximum = field.metadata.get(MAXIMUM)
        if isinstance(value, UserLimits):
            wrong.update(_wrong_user(field.name, value))
        elif isinstance(value, Mapping):
            for name, item in value.items():
                wrong.update(_wrong_item(f"{field.name}.{name}", item))
        elif maximum is not None and value > maximum:
            wrong[field.name] = f"must be between 0 and {maximum}"
        elif isinstance(field.default, float) and not (math.isfinite(value) and value >= 0):
            wrong[field.name] = "must be a number that is not negative"
        elif value < 0:
            wrong[field.name] = "must not be negative"
    return wrong


def _wrong_item(name: str, item: int | UserLimits) -> dict[str, str]:
    if isinstance(item, UserLimits):
        return _wrong_user(name, item)
    return {name: "must not be negative"} if item < 0 else {}


def _wrong_user(name: str, caps: UserLimits) -> dict[str, str]:
    counts = [getattr(caps, field.name) for field in fields(caps) if field.default is not None]
    return {name: "must not be negative"} if min(counts) < 0 else {}
