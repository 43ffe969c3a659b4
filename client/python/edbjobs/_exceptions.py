"""Errors of the client.

Each has a `message` for people, a `reason` for programs, `fields` and `metadata`::

    EdbJobsError
    ├── TargetError                 the address, token or certificates given to the client cannot be used
    ├── ConnectError                no service answers at the address
    │   ├── NotEdbJobsError         the server at the address is not edbjobs
    │   └── VersionError            the service has an API level this client cannot use
    ├── DeadlineError               no answer in time                              (also a TimeoutError)
    ├── WaitTimeoutError            a job did not end in the given time            (also a TimeoutError);
    │                               defined in `edbjobs._wait_timeout`, because it has the job
    ├── ServiceError                the service refused the request
    │   ├── InvalidRequestError     INVALID_ARGUMENT: `fields` has the invalid fields
    │   ├── NotFoundError           NOT_FOUND
    │   ├── ConflictError           ALREADY_EXISTS, or ABORTED: changed meanwhile
    │   ├── StateError              FAILED_PRECONDITION: not possible in the present state
    │   ├── OutOfRangeError         OUT_OF_RANGE: a revision or an offset that does not exist
    │   ├── AuthenticationError     UNAUTHENTICATED: the token is missing or wrong
    │   ├── ForbiddenError          PERMISSION_DENIED
    │   ├── BusyError               UNAVAILABLE, RESOURCE_EXHAUSTED: try again later
    │   └── NotServedError          UNIMPLEMENTED: not supported by this release of the service

An invalid value raises ``pydantic.ValidationError`` before anything is sent.
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
    """Base class of all errors of the client.

    Parameters
    ----------
    message : str
        Description of the error, and what to do.
    reason : str
        UPPER_SNAKE code for programs, for example ``JOB_NOT_FOUND``.
    fields : mapping of str to str, optional
        Error text by path of the field.
    metadata : mapping of str to str, optional
        Further values, for example the uid of the existing job.
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
    # Exception's own pickling, which multiprocessing uses, loses keyword-only arguments.
    error = kind.__new__(kind, state["message"])
    error.__dict__.update(state)
    return error


class TargetError(EdbJobsError, ValueError):
    """The address, token or certificates given to the client cannot be used."""


class ConnectError(EdbJobsError):
    """No service answers at the address."""


class NotEdbJobsError(ConnectError):
    """The server at the address is not edbjobs."""


class VersionError(ConnectError):
    """The service has an API level this client cannot use."""


class DeadlineError(EdbJobsError, TimeoutError):
    """The service did not answer in time."""


class ServiceError(EdbJobsError):
    """The service refused the request."""


class InvalidRequestError(ServiceError):
    """The request has invalid values; see `fields`."""


class NotFoundError(ServiceError):
    """The job, log or solver does not exist."""


class ConflictError(ServiceError):
    """The id belongs to another job, the request_id to another request, or the limits were changed meanwhile."""


class StateError(ServiceError):
    """The request is not possible in the present state."""


class OutOfRangeError(ServiceError):
    """The revision or offset does not exist: take a new snapshot and start from it."""


class AuthenticationError(ServiceError):
    """The caller is not authenticated: give a valid token."""


class ForbiddenError(ServiceError):
    """The caller has no permission for this request."""


class BusyError(ServiceError):
    """The service is temporarily unavailable or overloaded: try again later."""


class NotServedError(ServiceError):
    """The service's release does not support the request."""
