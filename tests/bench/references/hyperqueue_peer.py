"""HyperQueue: no-op tasks, two at a time, each with its two output files as by default; or submits that wait."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def noop(number: int, program: str) -> dict[str, float]:
    from hyperqueue import Job, LocalCluster  # type: ignore[import-not-found]
    from hyperqueue.cluster import WorkerConfig  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as folder, LocalCluster(f"{folder}/server", WorkerConfig(cores=2)) as cluster:
        client = cluster.client()
        job = Job(default_workdir=folder)
        for _ in range(number):
            job.program([program])
        started_at = time.time()
        client.wait_for_jobs([client.submit(job)])
        # It looks once a second whether all is done, so the time is that of the last output file.
        outputs = list(Path(folder).rglob("*.stdout"))
        assert len(outputs) == number, f"{len(outputs)} of {number} ran"
        return {"rate": number / (max(path.stat().st_mtime for path in outputs) - started_at)}


def submit(number: int, program: str) -> dict[str, list[float]]:
    from hyperqueue import Job, LocalCluster

    taken = []
    with tempfile.TemporaryDirectory() as folder, LocalCluster(f"{folder}/server") as cluster:  # without a worker
        client = cluster.client()
        for _ in range(number):
            job = Job(default_workdir=folder)
            job.program([program])
            started_at = time.perf_counter()
            client.submit(job)
            taken.append(time.perf_counter() - started_at)
    return {"seconds": taken}


def main(mode: str, values: dict[str, Any]) -> None:
    print(json.dumps({"noop": noop, "submit": submit}[mode](values["number"], values["program"])))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
