"""Changing limits: all of what is asked for, or nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from edbjobs.v1 import resources_service_pb2

from edbjobs_server.contract import codec
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.limits import Limits, UserLimits

_COUNTS = ("max_concurrent_jobs", "max_cores", "max_memory_mib", "max_cluster_jobs")
_AMOUNTS = ("max_cpu_percent", "min_memory_gb", "min_disk_gb")


def changed(old: Limits, request: resources_service_pb2.UpdateLimitsRequest) -> Limits:
    """Work out the limits after a request.

    Parameters
    ----------
    old : Limits
        Limits in force.
    request : UpdateLimitsRequest
        New values and the mask of the fields to take; without a mask, the fields that are set.

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
    wrong: dict[str, str] = {}
    for name in _COUNTS:
        if getattr(limits, name) < 0:
            wrong[name] = "must not be negative"
    for name in _AMOUNTS:
        value = getattr(limits, name)
        if not math.isfinite(value) or value < 0:
            wrong[name] = "must be a number that is not negative"
    if limits.max_cpu_percent > 100:
        wrong["max_cpu_percent"] = "must be between 0 and 100"
    wrong.update({f"licenses.{name}": "must not be negative" for name, count in limits.licenses.items() if count < 0})
    users = {
        "default_user": limits.default_user,
        **{f"users.{name}": caps for name, caps in limits.users.items()},
    }
    wrong.update({name: "must not be negative" for name, caps in users.items() if _is_negative(caps)})
    return wrong


def _is_negative(caps: UserLimits) -> bool:
    return caps.max_running_jobs < 0 or caps.max_cores < 0
