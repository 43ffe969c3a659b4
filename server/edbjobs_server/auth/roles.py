"""What callers may do: the one check of roles, for every RPC and for the jobs of other users."""

from __future__ import annotations

from edbjobs.v1 import job_pb2

from edbjobs_server.core.errors import Refused
from edbjobs_server.core.principal import Principal, Role

_SUBMIT = ("SubmitJob", "SubmitJobs")
_ONE_JOB = ("CancelJob", "HoldJob", "ReleaseJob", "SetJobPriority", "RetryJob", "DeleteJob")
_MANY_JOBS = ("CancelJobs", "HoldJobs", "ReleaseJobs", "SetJobsPriority", "RetryJobs", "DeleteJobs")
_SERVICE = ("PauseQueue", "ResumeQueue", "UpdateLimits")
# RPCs that are not named here read, which needs the least role; a test compares this with the descriptors.
REQUIRED = dict.fromkeys((*_SUBMIT, *_ONE_JOB, *_MANY_JOBS), Role.USER) | dict.fromkeys(_SERVICE, Role.ADMIN)


def require(principal: Principal, required: Role, what: str) -> None:
    """Refuse a caller whose role does not allow what it asks for.

    Parameters
    ----------
    principal : Principal
        The caller.
    required : Role
        The least role that may do it.
    what : str
        What it asks for, to be read after "may not".

    Raises
    ------
    Refused
        PERMISSION_DENIED.
    """
    if principal.role >= required:
        return
    role, needed = f"ROLE_{_name(principal.role)}", f"ROLE_{required.name}"
    raise Refused(
        "PERMISSION_DENIED",
        f"{principal.name} may not {what}: expected {needed}, got {role}; ask an administrator of the service",
        metadata={"role": role, "required_role": needed},
    )


def require_rpc(principal: Principal, method: str) -> None:
    """Refuse a call of an RPC, named by its name or its path, that the caller's role does not allow.

    Raises
    ------
    Refused
        PERMISSION_DENIED.
    """
    name = method.rpartition("/")[2]
    require(principal, REQUIRED.get(name, Role.VIEWER), f"call {name}")


def require_user(principal: Principal, user: str, what: str) -> None:
    """Refuse to act for `user`, or on a job of that user, unless it is the caller's own or the caller an administrator.

    Raises
    ------
    Refused
        PERMISSION_DENIED.
    """
    require(principal, Role.USER if user == principal.user else Role.ADMIN, what)


def may_see_environment(principal: Principal, user: str) -> bool:
    """Return whether a caller may read values of the environment of a job that belongs to `user`."""
    own = user == principal.user and principal.role >= Role.VIEWER
    return own or principal.role >= Role.ADMIN


def hide_environment(principal: Principal, job: job_pb2.Job) -> job_pb2.Job:
    """Clear the values of a job's environment in its message unless the caller may read them; the names stay."""
    if job.config.environment and not may_see_environment(principal, job.user):
        for name in job.config.environment:
            job.config.environment[name] = ""
    return job


def may_see_details(principal: Principal) -> bool:
    """Return whether a caller may read the details of the service, such as its state folder."""
    return principal.role >= Role.ADMIN


def _name(role: Role) -> str:
    return "UNSPECIFIED" if role is Role.UNKNOWN else role.name
