"""PyEDB's own job manager as a server that starts nothing; prints its URL."""

from __future__ import annotations

import asyncio
import logging
from typing import Any


async def main() -> None:
    from aiohttp import web
    from pyedb.workflows.job_manager.backend.service import JobManager, ResourceLimits

    manager: Any = JobManager(ResourceLimits(max_concurrent_jobs=0))  # has an `app` there
    logging.disable(logging.CRITICAL)
    runner = web.AppRunner(manager.app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print("http://{}:{}".format(*runner.addresses[0]), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
