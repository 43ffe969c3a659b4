"""Limits as `/pool/limits` has them: 0 is "no limit", null is 0, sizes are in MiB and GiB, maps are replaced whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edbjobs.v1 import resource_pb2, resources_service_pb2
from google.protobuf.json_format import ParseDict, ParseError

from edbjobs_server.core.errors import Refused
from edbjobs_server.core.principal import Principal
from edbjobs_server.gateway.json_values import Json
from edbjobs_server.gateway.models import GIB, LIMIT_NAMES, MIB, UNLIMITED_JOBS, Limits
from edbjobs_server.gateway.rest.requests import text_of
from edbjobs_server.manager.job_manager import JobManager

_SIZES = {"max_memory_mib": MIB, "min_memory_gb": GIB, "min_disk_gb": GIB}
_FLOATS = ("max_cpu_percent", "min_memory_gb", "min_disk_gb")
_MAPS = ("licenses", "users")
_NULLABLE = ("max_cpu_percent", "max_cores", "max_memory_mib", "max_cluster_jobs")
_USER_COUNTS = ("max_running_jobs", "max_cores")
_INT32 = 2**31
_MAX_SIZE = 2**63 - 1
_EXACT = 2**53  # larger integers are not exact in the JSON of most programs
_TRIES = 10  # of a change during which others change limits as well


async def update_limits(manager: JobManager, body: Json, principal: Principal) -> Json:
    """Change the documented limits that a body names, all or none; return all of them.

    Raises
    ------
    Refused
        INVALID_LIMITS, with every field that is wrong, by its documented name.
    """
    for _ in range(_TRIES):
        request = limits_request(body, manager.limits())
        try:
            new, _ = await manager.update_limits(request, principal)
        except Refused as refused:
            if refused.reason == "ETAG_MISMATCH":
                continue
            raise _documented(refused) from None
        return Limits.json_of(new)
    raise Refused("OVERLOADED", "the limits are being changed by others; try again")


def limits_request(body: Json, current: resource_pb2.Limits) -> resources_service_pb2.UpdateLimitsRequest:
    """Return the request that changes limits; the job manager applies all of them or none.

    Raises
    ------
    Refused
        INVALID_LIMITS, with every field of a wrong type.
    """
    if not body:
        raise Refused("INVALID_LIMITS", 'expected at least one limit, for example {"max_concurrent_jobs": 4}')
    request = resources_service_pb2.UpdateLimitsRequest()
    wrong: dict[str, str] = {}
    for name, value in body.items():
        what = _put_limit(request, text_of(name, "limit"), value)
        if what:
            wrong[name] = what
    if wrong:
        raise _invalid(wrong)
    for name, removed in (("licenses", request.remove_licenses), ("users", request.remove_users)):
        if name in body:
            removed.extend(sorted(set(getattr(current, name)) - set(body[name])))
            request.limits.etag = current.etag
    return request


def limit_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of the service for values of which limits are documented ones; "none" is no limit."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name not in LIMIT_NAMES:
            found[name] = value
        elif _is_none(name, value):
            found[LIMIT_NAMES[name]] = "none"
        else:
            sized = name in _SIZES and isinstance(value, int | float) and math.isfinite(value)
            found[LIMIT_NAMES[name]] = round(value * _SIZES[name]) if sized else value
    return found


def _put_limit(request: resources_service_pb2.UpdateLimitsRequest, name: str, value: Any) -> str:
    """Set or remove a limit; return what is wrong with its value, or nothing."""
    if name in _MAPS or name == "default_user":
        return _put_message(request.limits, name, value)
    if name not in LIMIT_NAMES:
        return "no such limit"
    if value is None and name in _NULLABLE:  # as it is shown
        setattr(request.limits, LIMIT_NAMES[name], 0)
        return ""
    is_float = name in _FLOATS
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (is_float or isinstance(value, int)):
        return "expected a number" if is_float else "expected an integer"
    if not -_INT32 <= value <= (_EXACT if name == "max_memory_mib" else _INT32 - 1):
        return "is too large"
    if name in _FLOATS and name in _SIZES and not (math.isfinite(value) and value >= 0):
        return "must be a number that is not negative"
    if _is_none(name, value):
        request.remove_mask.paths.append(LIMIT_NAMES[name])
    else:
        size = min(round(value * _SIZES[name]), _MAX_SIZE) if name in _SIZES else value
        setattr(request.limits, LIMIT_NAMES[name], size)
    return ""


def _put_message(limits: resource_pb2.Limits, name: str, value: Any) -> str:
    try:
        given = _without_zeros(value) if name == "default_user" else value
        if name == "users":
            given = {user: _without_zeros(its) for user, its in value.items()}
        ParseDict({name: given}, limits)
        if not isinstance(value, dict):  # null is absent to ParseDict
            return "expected an object"
    except (ParseError, TypeError, ValueError, AttributeError, UnicodeError):
        return "does not match edbjobs.v1.Limits"
    if name == "default_user":
        limits.default_user.SetInParent()
    return ""


def _without_zeros(user: Json) -> Json:
    """Return limits of a user with the contract's meaning: no limit is absent, and 0 is 0, which is given as null."""
    user = {name: value for name, value in user.items() if value != 0 or name == "max_priority"}
    return {name: 0 if value is None and name in _USER_COUNTS else value for name, value in user.items()}


def _is_none(name: str, value: float) -> bool:
    """Return whether a documented value is no limit."""
    if name == "max_concurrent_jobs":
        return value == UNLIMITED_JOBS
    return value == 0 or (name == "max_cpu_percent" and value == 100)


def _documented(refused: Refused) -> Refused:
    """Name the fields of a refusal as they are documented."""
    if refused.reason != "INVALID_LIMITS":
        return refused
    names = {name: documented for documented, name in LIMIT_NAMES.items()}
    return _invalid({names.get(field, field): what for field, what in refused.fields.items()})


def _invalid(wrong: Mapping[str, str]) -> Refused:
    text = "; ".join(f"{field}: {what}" for field, what in wrong.items())
    return Refused("INVALID_LIMITS", f"no limit was changed: {text}", fields=wrong)
