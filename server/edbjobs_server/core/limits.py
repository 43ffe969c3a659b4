"""Limits of the service and of its users, and the resources of a host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MAXIMUM = "maximum"  # key of a field's metadata: its largest value


@dataclass(frozen=True, slots=True)
class UserLimits:
    """Caps of one user; 0 is no cap, and None no ceiling of priority."""

    max_running_jobs: int = 0
    max_cores: int = 0
    max_priority: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits in force.

    A new limit needs a field here and in the message, the same name in the settings where it has an option, and
    documentation: codec, validation and the REST parser use these fields. Names, units and the meaning of 0 are
    those of ``edbjobs.v1.Limits``.
    """

    max_concurrent_jobs: int = 1
    max_cores: int = 0
    max_memory_mib: int = 0
    max_cluster_jobs: int = 0
    licenses: Mapping[str, int] = field(default_factory=dict)
    max_cpu_percent: float = field(default=0.0, metadata={MAXIMUM: 100})
    min_memory_gb: float = 0.0
    min_disk_gb: float = 0.0
    default_user: UserLimits = field(default_factory=UserLimits)
    users: Mapping[str, UserLimits] = field(default_factory=dict)

    def of_user(self, user: str) -> UserLimits:
        """Return the caps of a user."""
        return self.users.get(user, self.default_user)


@dataclass(frozen=True, slots=True)
class Host:
    """What the host has: logical processors the service may use, memory in MiB, and the site's cap of cluster jobs."""

    cores: int
    memory_mib: int
    max_cluster_jobs: int = 0
