"""Record what the old service answers: run it by hand with the Python of an environment that has pyedb 0.65.2.

    python tests/compat/record.py > tests/compat/recorded.json

It starts the old service with a solver that sleeps, puts every request of the table to it, and listens to its
events. Only keys, types and statuses are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from compat.requests_table import REQUESTS, Request, shape

SECONDS = 3


def fake_installation(folder: Path) -> Path:
    solver = folder / "v252" / "AnsysEM" / "ansysedt"
    solver.parent.mkdir(parents=True)
    solver.write_text(f"#!/bin/sh\nexec sleep {SECONDS}\n")
    solver.chmod(0o755)
    os.environ["ANSYSEM_ROOT252"] = str(solver.parent)
    return solver


def filled(body: Any, values: dict[str, str]) -> Any:
    text = json.dumps(body)
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return json.loads(text)


async def wait_for(session: Any, url: str, expected: str) -> None:
    name, _, status = expected.partition(":")
    states = {status} if status else {"completed", "failed", "cancelled"}
    end = time.monotonic() + 60
    while time.monotonic() < end:
        async with session.get(url + "/api/jobs") as response:
            if any(job["id"] == name and job["status"] in states for job in await response.json()):
                return
        await asyncio.sleep(0.05)
    raise TimeoutError(expected)


async def put(session: Any, url: str, request: Request, values: dict[str, str]) -> dict[str, Any]:
    if request.wait:
        await wait_for(session, url, request.wait)
    body = {} if request.body is None else {"json": filled(request.body, values)}
    async with session.request(request.method, url + request.path, **body) as response:
        text = await response.text()
        try:
            found = shape(json.loads(text))
        except ValueError:
            found = "text" if text else ""
        return {"status": response.status, "answer": found}


async def record(url: str, values: dict[str, str]) -> dict[str, Any]:
    import aiohttp
    import socketio

    events: dict[str, Any] = {}
    client = socketio.AsyncClient()
    client.on("*", lambda name, data: events.setdefault(name, shape(data)))
    await client.connect(url)
    answers = {}
    async with aiohttp.ClientSession() as session:
        for request in REQUESTS:
            answers[request.name] = await put(session, url, request, values)
    await asyncio.sleep(1)
    await client.disconnect()
    return {"answers": answers, "events": events}


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    solver = fake_installation(folder)
    values = {"solver": str(solver)}
    for number in (1, 2, 3):
        project = folder / f"project{number}.aedt"
        project.touch()
        values[f"project{number}"] = str(project)
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        old = importlib.import_module("pyedb.workflows.job_manager.backend.job_manager_handler")

        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        handler = old.JobManagerHandler(host="127.0.0.1", port=port)
        handler.start_service()
        found = asyncio.run(record(f"http://127.0.0.1:{port}", values))
    json.dump(found, sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
    sys.stdout.flush()
    os._exit(0)  # the old service's thread does not end


if __name__ == "__main__":
    main()
