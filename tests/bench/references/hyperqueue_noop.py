"""HyperQueue: no-op tasks, two at a time, each with its two output files as by default."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path


def main(number: int, program: str) -> None:
    from hyperqueue import Job, LocalCluster  # type: ignore[import-not-found]
    from hyperqueue.cluster import WorkerConfig  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as folder, LocalCluster(f"{folder}/server", WorkerConfig(cores=2)) as cluster:
        client = cluster.client()
        job = Job(default_workdir=folder)
        for _ in range(number):
            job.program([program])
        began = time.time()
        client.wait_for_jobs([client.submit(job)])
        # It looks once a second whether all is done, so the time is that of the last output file.
        outputs = list(Path(folder).rglob("*.stdout"))
        assert len(outputs) == number, f"{len(outputs)} of {number} ran"
        taken = max(path.stat().st_mtime for path in outputs) - began
        print(json.dumps({"rate": number / taken}))


if __name__ == "__main__":
    main(len(Path(sys.argv[1]).read_text().splitlines()), sys.argv[2])
