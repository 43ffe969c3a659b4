"""Errors of the client.

Each carries a `reason` for programs, a sentence for people, `fields` and `metadata`::

    EdbJobsError
    ├── TargetError                 the address, token or certificates given to the client cannot be used
    ├── ConnectError                nothing answers at the address
    │   ├── NotEdbJobsError         what answers there is something else
    │   └── VersionError            what answers there is an edbjobs of an API level this client cannot use
    ├── DeadlineError               no answer in time                              (also a TimeoutError)
    ├── WaitTimeoutError            a job had not ended in the given time          (also a TimeoutError);
    │                               defined in `edbjobs._wait_timeout`, because it holds the job
    ├── ServiceError                the service answered that it will not do it
    │   ├── InvalidRequestError     INVALID_ARGUMENT: `fields` says what is wrong where
    │   ├── NotFoundError           NOT_FOUND
    │   ├── ConflictError           ALREADY_EXISTS
    │   ├── StateError              FAILED_PRECONDITION: not in this state
    │   ├── OutOfRangeError         OUT_OF_RANGE: a revision or an offset that is not there
    │   ├── AuthenticationError     UNAUTHENTICATED: who you are is not known; a token is needed
    │   ├── ForbiddenError          PERMISSION_DENIED
    │   ├── BusyError               UNAVAILABLE, RESOURCE_EXHAUSTED, ABORTED: try again later
    │   └── NotServedError          UNIMPLEMENTED: this release of the service does not do it

A value that cannot be right raises ``pydantic.ValidationError`` before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "AuthenticationError",
    "BusyError",
    "ConflictError",
    "ConnectError",
    "DeadlineError",
    "EdbJobsError",
    "ForbiddenError",
    "InvalidRequestError",
    "NotEdbJobsError",
    "NotFoundError",
    "NotServedError",
    "OutOfRangeError",
    "ServiceError",
    "StateError",
    "TargetError",
    "VersionError",
]


class EdbJobsError(Exception):
    """Root of the tree.

    Parameters
    ----------
    message : str
        What was wrong, where, and what to do.
    reason : str
        UPPER_SNAKE word for programs, for example ``JOB_NOT_FOUND``.
    fields : mapping of str to str, optional
        Path of a field to what is wrong with it.
    metadata : mapping of str to str, optional
        Further values, for example the uid of the job that exists.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        fields: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.fields = dict(fields or {})
        self.metadata = dict(metadata or {})

    def __str__(self) -> str:
        details = "".join(f"\n  {field}: {text}" for field, text in self.fields.items() if text not in self.message)
        return self.message + details

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.__dict__.copy())


def _rebuild(kind: type[EdbJobsError], state: dict[str, object]) -> EdbJobsError:
    # Keyword-only arguments are lost in Exception's own pickling, which multiprocessing relies on.
    error = kind.__new__(kind, state["message"])
    error.__dict__.update(state)
    return error


class TargetError(EdbJobsError, ValueError):
    """The address, token or certificates given to the client cannot be used."""


class ConnectError(EdbJobsError):
    """Nothing answers at the address."""


class NotEdbJobsError(ConnectError):
    """What answers at the address is not edbjobs."""


class VersionError(ConnectError):
    """What answers is an edbjobs of an API level this client cannot use."""


class DeadlineError(EdbJobsError, TimeoutError):
    """The service did not answer in time."""


class ServiceError(EdbJobsError):
    """The service answered that it will not do it."""


class InvalidRequestError(ServiceError):
    """Something in the request cannot be right."""


class NotFoundError(ServiceError):
    """There is no such job, log or solver."""


class ConflictError(ServiceError):
    """Another job has this id, or another request this request_id."""


class StateError(ServiceError):
    """It cannot be done in the present state."""


class OutOfRangeError(ServiceError):
    """A revision or an offset that is not there: take a snapshot and begin again."""


class AuthenticationError(ServiceError):
    """The service does not know who is calling: give a token."""


class ForbiddenError(ServiceError):
    """The caller may not do this."""


class BusyError(ServiceError):
    """The service cannot do it now: try again later."""


class NotServedError(ServiceError):
    """The service is of a release that does not do it."""
