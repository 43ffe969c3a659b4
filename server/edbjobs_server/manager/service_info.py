"""What the service reports of itself that does not change while it runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ServiceInfo:
    """What the service reports of itself and what does not change while it runs.

    Attributes
    ----------
    state_dir : Path
        Folder with store, logs and runs.
    account : str
        Account the service and its solves run as.
    warnings : sequence of str
        Things an administrator should know.
    """

    state_dir: Path
    account: str
    warnings: Sequence[str] = ()
    start_time: float = field(default_factory=time.time)
