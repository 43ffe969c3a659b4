"""What a site lets jobs ask of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClusterPolicy:
    """What a site lets jobs ask for, and where their files must lie.

    Attributes
    ----------
    partitions : tuple of str
        Partitions or queues that may be named; empty: any.
    default_partition : str
        For jobs that name none; empty: the first of `partitions`, else the scheduler's default.
    accounts : tuple of str
        Accounts that may be named; empty: any.
    default_account : str
        For jobs that name none; empty: the first of `accounts`, else the scheduler's default.
    extra_options : tuple of str
        Names that ``SchedulerOptions.extra`` may have; empty: none.
    shared_dir : Path or None
        Folder for runs on the cluster; None: jobs are refused.
    shared_roots : tuple of Path
        Real paths of the folders that projects must lie in; empty: anywhere.
    scratch : bool
        Runs get a folder for temporary files on their nodes.
    """

    partitions: tuple[str, ...] = ()
    default_partition: str = ""
    accounts: tuple[str, ...] = ()
    default_account: str = ""
    extra_options: tuple[str, ...] = ()
    shared_dir: Path | None = None
    shared_roots: tuple[Path, ...] = ()
    scratch: bool = False
