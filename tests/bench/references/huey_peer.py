"""huey on SQLite with fsync: no-op jobs, two at a time, their results stored; or submits that wait."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

WAIT_SECONDS = 100


def make(program: str) -> tuple[Any, Any]:
    from huey import SqliteHuey  # type: ignore[import-not-found]

    huey = SqliteHuey("bench", filename="huey.db", fsync=True)

    def run() -> bool:
        _, status = os.waitpid(os.posix_spawn(program, [program], {}), 0)
        return status == 0

    return huey, huey.task()(run)


def noop(number: int, program: str) -> dict[str, float]:
    huey, run = make(program)
    consumer = huey.create_consumer(workers=2, periodic=False, initial_delay=0.001, max_delay=0.01)
    consumer.start()
    try:
        started_at = time.perf_counter()
        results = [run() for _ in range(number)]
        while huey.result_count() < number:
            assert time.perf_counter() - started_at < WAIT_SECONDS, f"{huey.result_count()} of {number} ran"
            time.sleep(0.002)
        taken = time.perf_counter() - started_at
        assert all(result.get() for result in results)
        return {"rate": number / taken}
    finally:
        consumer.stop(graceful=True)


def submit(number: int, program: str) -> dict[str, list[float]]:
    huey, run = make(program)
    taken = []
    for _ in range(number):
        started_at = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started_at)
    huey.flush()
    return {"seconds": taken}


def main(mode: str, values: dict[str, Any]) -> None:
    print(json.dumps({"noop": noop, "submit": submit}[mode](values["number"], values["program"])))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
