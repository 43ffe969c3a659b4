"""Changes of limits: all that a request names, or none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from edbjobs.v1 import resource_pb2, resources_service_pb2
from google.protobuf.message import Message

from edbjobs_server.contract import codec
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.limits import MAXIMUM, Limits, UserLimits

_MAPS = ("licenses", "users")
_NAMES = frozenset(field.name for field in fields(Limits))
_OF_DEFAULT_USER = frozenset(f"default_user.{field.name}" for field in fields(UserLimits))


def changed(old: Limits, request: resources_service_pb2.UpdateLimitsRequest) -> Limits:
    """Return the limits after a request.

    Parameters
    ----------
    old : Limits
        Limits in force.
    request : UpdateLimitsRequest
        What is set and what is removed.

    Raises
    ------
    Refused
        INVALID_LIMITS, naming every field that is wrong; ETAG_MISMATCH.
    """
    removed = [*_removed(request)]
    wrong = dict(_contradictions(request.limits, removed))
    result = _set(_without(old, removed), request.limits)
    wrong.update(_wrong(result))
    if wrong:
        text = "; ".join(f"{field}: {what}" for field, what in wrong.items())
        raise Refused("INVALID_LIMITS", f"no limit was changed: {text}", fields=wrong)
    if request.limits.etag and result != old:
        _check_etag(request.limits.etag, old)
    return result


def _check_etag(etag: str, old: Limits) -> None:
    current = codec.limits_to_message(old).etag
    if etag != current:
        raise Refused(
            "ETAG_MISMATCH",
            "no limit was changed: they are not the ones of the etag any more; read them and decide again",
            metadata={"etag": current},
        )


def _removed(request: resources_service_pb2.UpdateLimitsRequest) -> Iterator[tuple[str, str]]:
    """Yield each field that is removed, and of an entry of a map its key."""
    for path in request.remove_mask.paths:
        yield path, ""
    for name, keys in (("licenses", request.remove_licenses), ("users", request.remove_users)):
        for key in keys:
            yield name, key


def _contradictions(limits: resource_pb2.Limits, removed: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield what cannot be removed: there is no such limit, or the request sets it as well."""
    for path, key in removed:
        name, _, part = path.partition(".")
        if path not in _NAMES | _OF_DEFAULT_USER:
            yield path, "no such limit"
        elif key:
            if key in getattr(limits, path):
                yield f"{path}.{key}", "is set and removed"
        elif name in _MAPS:
            if getattr(limits, name):
                yield path, "is set and removed"
        elif _is_set(limits, name) and (not part or _is_set(limits.default_user, part)):
            yield path, "is set and removed"


def _is_set(message: Message, name: str) -> bool:
    return message.HasField(name)


def _without(limits: Limits, removed: Iterable[tuple[str, str]]) -> Limits:
    values: dict[str, Any] = {}
    for path, key in removed:
        name, _, part = path.partition(".")
        if key:
            values[path] = {**values.get(path, getattr(limits, path))}
            values[path].pop(key, None)
        elif name in _MAPS:
            values[name] = {}
        elif path in _OF_DEFAULT_USER:
            user = values.get(name, limits.default_user)
            values[name] = replace(user, **{part: None}) if user is not None else None
        elif path in _NAMES:
            values[name] = None
    return _tidy(replace(limits, **values))


def _set(limits: Limits, given: resource_pb2.Limits) -> Limits:
    """Replace each limit that is set, and the entry of each key."""
    new = codec.limits_from_message(given)
    values: dict[str, Any] = {}
    for field, _ in given.ListFields():
        if field.name in _MAPS:
            values[field.name] = {**getattr(limits, field.name), **getattr(new, field.name)}
        elif field.name in _NAMES:
            values[field.name] = getattr(new, field.name)
    return _tidy(replace(limits, **values))


def _tidy(limits: Limits) -> Limits:
    """Leave out a default user without limits: it is the same as none."""
    return replace(limits, default_user=None) if limits.default_user == UserLimits() else limits


def _wrong(limits: Limits) -> dict[str, str]:
    """Return what is wrong with each limit."""
    wrong: dict[str, str] = {}
    for field in fields(limits):
        value = getattr(limits, field.name)
        if isinstance(value, UserLimits):
            wrong.update(_wrong_user(field.name, value))
        elif isinstance(value, Mapping):
            for name, item in value.items():
                wrong.update(_wrong_item(f"{field.name}.{name}", item))
        elif value is not None:
            wrong.update(_wrong_number(field.name, value, field.metadata.get(MAXIMUM)))
    return wrong


def _wrong_number(name: str, value: float, maximum: float | None) -> dict[str, str]:
    if maximum is not None and not (math.isfinite(value) and 0 <= value <= maximum):
        return {name: f"must be between 0 and {maximum}"}
    return {name: "must not be negative"} if value < 0 else {}


def _wrong_item(name: str, item: int | UserLimits) -> dict[str, str]:
    return _wrong_user(name, item) if isinstance(item, UserLimits) else _wrong_number(name, item, None)


def _wrong_user(name: str, limits: UserLimits) -> dict[str, str]:
    counts = (limits.max_running_jobs, limits.max_cores)
    return {name: "must not be negative"} if any(count is not None and count < 0 for count in counts) else {}
