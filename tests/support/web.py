"""The real service with its HTTP endpoint, and helpers for its clients in tests."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edbjobs_server.solver.demo import example_project

from support.service import DEADLINE, ServiceProcess


class WebService(ServiceProcess):
    """A service with an HTTP endpoint on a free port."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, **{"http": "127.0.0.1:0", **settings})

    def __enter__(self) -> WebService:
        self.start()
        return self

    @property
    def url(self) -> str:
        """Base URL."""
        return str(self.endpoint["http"])

    @property
    def port(self) -> int:
        """Port of the HTTP endpoint."""
        port = urlsplit(self.url).port
        assert port is not None
        return port

    @property
    def token(self) -> str:
        """The service's token."""
        return (self.state_dir / "token").read_text().strip()


def job_config(folder: Path, seconds: float = 0.2, **more: Any) -> dict[str, Any]:
    """Return the configuration of a job with its own project; `seconds`: run time of the demo solver."""
    demo = f"seconds={seconds}" + "".join(f",{name}={more.pop(name)}" for name in ("fail", "children") if name in more)
    project = example_project(folder)
    return {"project_path": str(project), "environment": {"ANS_EDBJOBS_DEMO": demo}, **more}


async def until(what: Any, deadline: float = DEADLINE) -> Any:
    """Call until the result is true, and return it."""
    end = time.monotonic() + deadline
    while not (found := await what()):
        assert time.monotonic() < end, "the condition was not met in time"
        await asyncio.sleep(0.02)
    return found
