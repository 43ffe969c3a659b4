"""Limits as the documented object; assigning a value changes the limit in force."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from edbjobs_server.gateway.models import Limits
from edbjobs_server.gateway.rest.limits import update_limits
from edbjobs_server.manager.job_manager import JobManager

from edbjobs_pyedb.embedded import PRINCIPAL
from edbjobs_pyedb.jobs import Caller


class _NotGiven(float):
    """A documented default that was not set: it is shown, and sets no limit."""


class _CountNotGiven(int):
    """As `_NotGiven`, for an integer."""


@dataclass
class ResourceLimits:
    """Limits at the start. One that is not set stays as it is stored: at first no limit, and one job at once.

    Parameters
    ----------
    max_concurrent_jobs : int
        Jobs that run at the same time on this host.
    max_cpu_percent : float
        Nothing starts while other programs use more of the host's processors.
    min_memory_gb, min_disk_gb : float
        Nothing starts while less memory, or less space on a volume of the solves, is free, in GiB.
    """

    max_concurrent_jobs: int = _CountNotGiven(1)
    max_cpu_percent: float = _NotGiven(80.0)
    min_memory_gb: float = _NotGiven(2.0)
    min_disk_gb: float = _NotGiven(2.0)

    def given(self) -> dict[str, Any]:
        """Return the values that were set."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if not isinstance(value, _NotGiven | _CountNotGiven)}


NAMES = tuple(field.name for field in fields(ResourceLimits))


class LiveLimits(ResourceLimits):
    """The limits in force: reading asks the service, and assigning changes them for all its clients.

    Before the service is started they are the limits at its start.

    Parameters
    ----------
    caller : Caller
        Runs coroutines on the service's loop.
    first : ResourceLimits
        Limits at the start.
    """

    def __init__(self, caller: Caller, first: ResourceLimits) -> None:
        self.__dict__["caller"] = caller
        self.__dict__["first"] = first

    def given(self) -> dict[str, Any]:
        """Return the values for the start that were set."""
        first: ResourceLimits = self.__dict__["first"]
        return first.given()

    def __getattribute__(self, name: str) -> Any:
        if name not in NAMES:
            return object.__getattribute__(self, name)
        caller: Caller = self.__dict__["caller"]
        return caller.call(_limits)[name] if caller.running else getattr(self.__dict__["first"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in NAMES:
            raise AttributeError(f"there is no limit {name!r}; there are {', '.join(NAMES)}")
        caller: Caller = self.__dict__["caller"]
        if caller.running:
            caller.call(partial(update, values={name: value}))
        else:
            setattr(self.__dict__["first"], name, value)


async def _limits(manager: JobManager) -> dict[str, Any]:
    return _documented(Limits.json_of(manager.limits()))


def _documented(limits: dict[str, Any]) -> dict[str, Any]:
    return {name: limits[name] for name in NAMES}


async def update(manager: JobManager, values: dict[str, Any]) -> dict[str, Any]:
    """Change limits, all or none; return the documented ones after it.

    Raises
    ------
    Refused
        INVALID_LIMITS.
    """
    return _documented(await update_limits(manager, values, PRINCIPAL))
