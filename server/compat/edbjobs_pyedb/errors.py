"""The exception of the documented job manager."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from edbjobs_server.core.errors import Refused
from edbjobs_server.gateway.documented.translation import documented_refusal


class JobManagerError(RuntimeError):
    """The job manager refuses a request, or cannot serve it.

    Parameters
    ----------
    message : str
        What was wrong, where, and what to do.
    reason : str
        UPPER_SNAKE word for programs, for example ``SOLVER_NOT_FOUND``.
    fields : mapping of str to str, optional
        Path of a field to what is wrong with it.
    """

    def __init__(self, message: str, reason: str, fields: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.fields = dict(fields or {})


def raised(refused: Refused) -> JobManagerError:
    """Return the `JobManagerError` for a `Refused` of the service, with the documented names of fields."""
    refused = documented_refusal(refused)
    return JobManagerError(refused.message, refused.reason, refused.fields)


@contextmanager
def refusals_raised() -> Iterator[None]:
    """Raise a `Refused` of the block as a `JobManagerError`."""
    try:
        yield
    except Refused as refused:
        raise raised(refused) from refused


def no_cluster(what: str) -> JobManagerError:
    """Return the error for a request that needs a cluster."""
    return JobManagerError(what, "NO_SCHEDULER")


def not_running() -> JobManagerError:
    """Return the error for a call while the service is not started, or after it was closed."""
    text = "the job manager is not running; start_service(), or start() of a JobManager, opens it with all its jobs"
    return JobManagerError(text, "NOT_RUNNING")
