"""procrastinate on PostgreSQL: no-op jobs, two at a time; or submits that wait."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any


def make(database: str, program: str) -> tuple[Any, Any]:
    from procrastinate import App, PsycopgConnector  # type: ignore[import-not-found]

    app = App(connector=PsycopgConnector(conninfo=database))

    def run() -> None:
        _, status = os.waitpid(os.posix_spawn(program, [program], {}), 0)
        assert status == 0

    return app, app.task(name="run")(run)


async def noop(app: Any, run: Any, number: int) -> dict[str, float]:
    started_at = time.perf_counter()
    await run.batch_defer_async(*({} for _ in range(number)))
    await app.run_worker_async(concurrency=2, wait=False, install_signal_handlers=False)
    taken = time.perf_counter() - started_at
    done = len(list(await app.job_manager.list_jobs_async(status="succeeded")))
    assert done >= number, f"{done} of {number} ran"
    return {"rate": number / taken}


async def submit(app: Any, run: Any, number: int) -> dict[str, list[float]]:
    taken = []
    for _ in range(number):
        started_at = time.perf_counter()
        await run.defer_async()
        taken.append(time.perf_counter() - started_at)
    return {"seconds": taken}


async def main(mode: str, values: dict[str, Any]) -> None:
    app, run = make(values["database"], values["program"])
    async with app.open_async():
        await app.connector.execute_query_async("DROP SCHEMA public CASCADE")  # of the run before
        await app.connector.execute_query_async("CREATE SCHEMA public")
        await app.schema_manager.apply_schema_async()
        measure = {"noop": noop, "submit": submit}[mode]
        print(json.dumps(await measure(app, run, values["number"])))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
