"""A probe in the service's event loop: how long was it away from the loop?"""

from __future__ import annotations

import asyncio
import time

from edbjobs_server.config.settings import Settings
from edbjobs_server.service import app

BEAT_SECONDS = 0.005
_TOLD_SECONDS = 0.01


def install(report: str) -> None:
    """Let the service of this process write the times of long gaps between two beats to a file."""
    serve = app.serve

    async def probed(settings: Settings) -> None:
        beating = asyncio.create_task(_beat(report))
        try:
            await serve(settings)
        finally:
            beating.cancel()

    app.serve = probed


async def _beat(report: str) -> None:
    with open(report, "a", buffering=1) as file:  # noqa: ASYNC230 (a line now and then)
        last = time.monotonic()
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            now = time.monotonic()
            if now - last >= _TOLD_SECONDS:
                file.write(f"{now} {(now - last) * 1000}\n")
            last = now
