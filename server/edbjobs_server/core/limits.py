"""Limits of the service and of its users, and the resources of a host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MAXIMUM = "maximum"  # key of a field's metadata: its largest value


@dataclass(frozen=True, slots=True)
class UserLimits:
    """Limits of one user, on this host and on clusters together. None: no limit; 0 lets nothing start."""

    max_running_jobs: int | None = None
    max_cores: int | None = None
    max_priority: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits in force. None: no limit; 0 lets nothing start, but of `min_*`, where it requires nothing.

    A new limit needs a field here and in the message, the same name in the settings where it has an option, and
    documentation: codec, validation and settings use these fields. Names and units are those of
    ``edbjobs.v1.Limits``.
    """

    max_local_jobs: int | None = None
    max_cores: int | None = None
    max_memory_bytes: int | None = None
    max_cluster_jobs: int | None = None
    licenses: Mapping[str, int] = field(default_factory=dict)
    max_cpu_percent: float | None = field(default=None, metadata={MAXIMUM: 100})
    min_free_memory_bytes: int | None = None
    min_free_disk_bytes: int | None = None
    default_user: UserLimits | None = None
    users: Mapping[str, UserLimits] = field(default_factory=dict)

    def of_user(self, user: str) -> UserLimits:
        """Return the limits of a user."""
        return self.users.get(user, self.default_user or NO_USER_LIMITS)


NO_USER_LIMITS = UserLimits()
INITIAL_LIMITS = Limits(max_local_jobs=1)  # of a new store


@dataclass(frozen=True, slots=True)
class Host:
    """What the host has: logical processors the service may use, memory, and the site's limit of cluster jobs."""

    cores: int
    memory_bytes: int
    max_cluster_jobs: int | None = None
