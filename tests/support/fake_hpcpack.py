"""A double of the REST service of an HPC Pack head node, as far as the adapter uses it.

It keeps jobs, answers in the forms of Microsoft's specification and of the samples taken from its acceptance test,
and checks each request against the specification where that stands beside the checkout. It runs nothing: a test says
when a job starts and ends. It was made from documents, like the adapter; that both agree proves nothing about a real
head node.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import trustme
import yaml
from aiohttp import web

SPECIFICATION = (
    Path(__file__).resolve().parents[3] / "shared" / "captures" / "hpcpack" / "hpcpack-rest-2019.openapi.yaml"
)
USER, PASSWORD = "HPC\\solver", "p:ss wört%"
_ENDED = ("Finished", "Failed", "Canceled")


def node(name: str, cores: int = 8, **more: Any) -> dict[str, Any]:
    """A node as the specification's example has it."""
    return {
        "Name": name, "State": "Online", "Health": "OK", "Cores": cores, "Sockets": 1, "MemorySize": 28672,
        "Groups": ["ComputeNodes"], "Template": "HeadNode Template", "Location": None, "OnAzure": False, **more,
    }  # fmt: skip


@dataclass
class FakeJob:
    """A job with its properties, and those of its tasks."""

    id: int
    job: dict[str, str]
    tasks: list[dict[str, str]] = field(default_factory=list)


@dataclass
class Trouble:
    """What goes wrong with requests: `when` is ``before`` or ``after`` their work is done."""

    method: str
    path: str  # regular expression of the whole path after /hpc
    when: str
    act: Callable[[], Any]
    times: int


class FakeHpcPack:
    """One head node; `async with` starts it on a port of its own."""

    def __init__(self, folder: Path, *, tls: bool = True) -> None:
        self.jobs: dict[int, FakeJob] = {}
        self.nodes = [node("CN001"), node("CN002", 16, Groups=["ComputeNodes", "Big"])]
        self.groups = ["HeadNodes", "ComputeNodes", "Big"]
        self.in_use = {"CN001": 0, "CN002": 0}
        self.version: Any = "6.1.7531.0"
        self.date_format = "M/d/yyyy h:mm:ss tt"
        self.gives_error_codes = True
        self.page_limit = 10_000
        self.unknown_status = 404
        self.requests: list[tuple[str, str, Any]] = []
        self.violations: list[str] = []
        self.ca_file = folder / "ca.pem"
        self._tls = tls
        self._next = 19
        self._troubles: list[Trouble] = []
        self._runner: web.AppRunner | None = None
        self._spec = Specification(SPECIFICATION) if SPECIFICATION.exists() else None
        self.port = 0

    async def __aenter__(self) -> FakeHpcPack:
        context = self._context() if self._tls else None
        app = web.Application(client_max_size=1 << 20)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *args: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def _context(self) -> ssl.SSLContext:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        return context

    @property
    def url(self) -> str:
        """Address for the adapter."""
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    # What tests command ----------------------------------------------------------------------------------

    def start(self, job_id: str | int, nodes: str = "CN001", at: float | None = None) -> None:
        """Let a job of the queue begin."""
        job = self.jobs[int(job_id)]
        assert job.job["State"] in ("Submitted", "Queued"), job.job
        now = {"StartTime": self._time(at), "AllocatedNodes": nodes}
        job.job.update(now, State="Running")
        job.tasks[0].update(now, State="Running")

    def finish(self, job_id: str | int, exit_code: int, at: float | None = None) -> None:
        """Let its program end by itself."""
        job = self.jobs[int(job_id)]
        assert job.job["State"] == "Running", job.job
        state = "Failed" if exit_code else "Finished"
        job.tasks[0].update(State=state, ExitCode=str(exit_code), EndTime=self._time(at))
        job.job.update(State=state, EndTime=self._time(at))

    def end(self, job_id: str | int, state: str, *, task: dict[str, str] | None = None, **more: str) -> None:
        """Let it end otherwise, with further properties of the job and of its task."""
        job = self.jobs[int(job_id)]
        job.job.update({"State": state, "EndTime": self._time(None), **more})
        for item in job.tasks:
            item.update({"State": "Failed", **(task or {})})

    def cancel(self, job_id: str | int, by: str = "HPC\\admin", message: str = "maintenance") -> None:
        """Let a person cancel it."""
        self._cancel(self.jobs[int(job_id)], f"Canceled by {by}. Message: {message}")

    def purge(self, job_id: str | int) -> None:
        """Forget it, as after TtlCompletedJobs."""
        del self.jobs[int(job_id)]

    def trouble(self, method: str, path: str, act: Callable[[], Any], *, when: str = "before", times: int = 1) -> None:
        """Let `act` be awaited before or after the next requests are carried out; it may answer or raise."""
        self._troubles.append(Trouble(method, path, when, act, times))

    def calm(self) -> None:
        """End all troubles."""
        self._troubles.clear()

    def record(self, folder: Path, name: str, **words: object) -> None:
        """Write what the run's script would write; see `executors.cluster.record`."""
        (folder / name).write_text(" ".join(f"{key}={value}" for key, value in words.items()) + "\n")

    def _time(self, at: float | None) -> str:
        moment = time.gmtime(time.time() if at is None else at)
        hour = moment.tm_hour % 12 or 12
        date = f"{moment.tm_mon}/{moment.tm_mday}/{moment.tm_year}"
        return f"{date} {hour}:{moment.tm_min:02}:{moment.tm_sec:02} {'PM' if moment.tm_hour >= 12 else 'AM'}"

    # Requests --------------------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {expected}":
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic"})
        if not request.path.startswith("/hpc/"):
            return web.Response(status=404, text="<html><body>The resource cannot be found.</body></html>")
        path = request.path.removeprefix("/hpc")
        text = await request.text()
        body = json.loads(text) if text else None
        self.requests.append((request.method, path, body))
        if self._spec is not None:
            self.violations += self._spec.wrong(request.method, path, dict(request.query), body)
        if (early := await self._troubled(request, path, "before")) is not None:
            return early
        try:
            answer = self._answer(request.method, path, dict(request.query), body)
        except KeyError:
            return web.json_response({"Message": "Der angegebene Auftrag ist ungültig."}, status=self.unknown_status)
        except ValueError as error:
            return web.json_response(str(error), status=400)
        late = await self._troubled(request, path, "after")
        return answer if late is None else late

    async def _troubled(self, request: web.Request, path: str, when: str) -> web.StreamResponse | None:
        for trouble in list(self._troubles):
            fits = trouble.method == request.method and re.fullmatch(trouble.path, path) and trouble.when == when
            if fits and trouble.times > 0:
                trouble.times -= 1
                answer = trouble.act()
                answer = await answer if asyncio.iscoroutine(answer) else answer
                if answer == "cut":
                    assert request.transport is not None
                    request.transport.abort()
                    return web.Response()
                return answer if isinstance(answer, web.StreamResponse) else None
        return None

    def _answer(self, method: str, path: str, query: dict[str, str], body: Any) -> web.Response:
        routes: list[tuple[str, str, Callable[..., web.Response]]] = [
            ("GET", "/cluster/version", lambda: web.json_response(self.version)),
            ("GET", "/cluster/info/dateTimeFormat", lambda: web.json_response(self.date_format)),
            ("GET", "/cluster/nodes", lambda: web.json_response(self.nodes)),
            ("GET", "/cluster/nodeGroups", lambda: web.json_response([{"Name": name} for name in self.groups])),
            ("GET", "/cluster/nodes/metrics", lambda: web.json_response(self._metrics())),
            ("GET", "/jobs", lambda: self._list(query)),
            ("POST", "/jobs", lambda: self._create(body)),
            ("GET", r"/jobs/(\d+)", lambda job: web.json_response(_pairs(self._shown(self.jobs[int(job)].job)))),
            ("GET", r"/jobs/(\d+)/tasks", lambda job: self._tasks(self.jobs[int(job)], query)),
            ("POST", r"/jobs/(\d+)/tasks", lambda job: self._add_task(self.jobs[int(job)], body)),
            ("POST", r"/jobs/(\d+)/submit", lambda job: self._submit(self.jobs[int(job)], body)),
            ("POST", r"/jobs/(\d+)/cancel", lambda job: self._cancel_request(self.jobs[int(job)], body)),
        ]
        for known, form, work in routes:
            if known == method and (match := re.fullmatch(form, path)):
                return work(*match.groups())
        return web.Response(status=404, text="<html>no such route</html>")

    def _metrics(self) -> list[dict[str, Any]]:
        return [{"NodeName": name, "Metrics": {"HpcCoresInUse": float(cores)}} for name, cores in self.in_use.items()]

    def _shown(self, job: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in job.items() if name != "ErrorCode" or self.gives_error_codes}

    def _create(self, body: Any) -> web.Response:
        job = _unpaired(body)
        job_id, self._next = self._next, self._next + 1
        never = self._time(-62135596800.0)  # DateTime.MinValue
        standard = {"Id": str(job_id), "Owner": USER, "State": "Configuring", "SubmitTime": never, "StartTime": never}
        self.jobs[job_id] = FakeJob(job_id, {**job, **standard, "EndTime": never, "ErrorMessage": ""})
        return web.json_response(job_id)

    def _add_task(self, job: FakeJob, body: Any) -> web.Response:
        number = len(job.tasks) + 1
        job.tasks.append({**_unpaired(body), "TaskId": f"{job.id}.{number}", "State": "Configuring"})
        return web.json_response(number)

    def _submit(self, job: FakeJob, body: Any) -> web.Response:
        if job.job["State"] != "Configuring":
            raise ValueError("The job must be in the configuration state in order to submit the job.")
        if _unpaired(body or []).get("Password") != PASSWORD:
            raise ValueError("The job is missing the user name or password.")
        job.job.update(State="Queued", SubmitTime=self._time(None))
        for task in job.tasks:
            task["State"] = "Queued"
        return web.Response(status=204)

    def _cancel_request(self, job: FakeJob, body: Any) -> web.Response:
        if job.job["State"] in _ENDED:
            raise ValueError("You cannot cancel the job in its current state.")
        self._cancel(job, f"Canceled by user. Message: {body or 'none'}")
        return web.Response(status=204)

    def _cancel(self, job: FakeJob, message: str) -> None:
        job.job.update(State="Canceled", ErrorMessage=message, EndTime=self._time(None), ErrorCode="-2147220991")
        for task in job.tasks:
            task.update(State="Failed", ErrorMessage=message)

    def _list(self, query: dict[str, str]) -> web.Response:
        rows = [job.job for job in self.jobs.values()]
        if "owner" in query:
            rows = [row for row in rows if row["Owner"].lower() == query["owner"].lower()]
        if match := re.fullmatch(r"JobState eq (\w+)", query.get("$filter", "")):
            rows = [row for row in rows if row["State"].lower() == match[1].lower()]
        elif "$filter" in query:
            raise ValueError("the filter is not valid")
        rows.sort(key=lambda row: int(row["Id"]), reverse=query.get("asc") == "false")
        return self._page(rows, query)

    def _tasks(self, job: FakeJob, query: dict[str, str]) -> web.Response:
        return self._page(job.tasks, query)

    def _page(self, rows: list[dict[str, str]], query: dict[str, str]) -> web.Response:
        first, most = int(query["startRow"]), min(int(query["rowsPerRead"]), self.page_limit)
        wanted = query["properties"].split(",")
        shown = [{"Properties": _pairs({name: row.get(name) for name in wanted})} for row in rows[first : first + most]]
        return web.json_response(shown, headers={"x-ms-row-count": str(len(rows))})


def _pairs(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"Name": name, "Value": value} for name, value in values.items()]


def _unpaired(body: Any) -> dict[str, str]:
    return {item["Name"]: item["Value"] for item in body}


class Specification:
    """Microsoft's specification of the routes; tells what is wrong with a request."""

    def __init__(self, path: Path) -> None:
        self._all = yaml.safe_load(path.read_text(encoding="utf-8"))
        # Fixed paths first: /jobs/templates is no job's number.
        self._paths = sorted(self._all["paths"], key=lambda known: known.count("{"))

    def wrong(self, method: str, path: str, query: dict[str, str], body: Any) -> list[str]:
        """Check route, parameters and body."""
        for known in self._paths:
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", known), path):
                return self._check(method, known, query, body)
        return [f"{method} {path}: no such route"]

    def _check(self, method: str, known: str, query: dict[str, str], body: Any) -> list[str]:
        route = self._all["paths"][known]
        if method.lower() not in route:
            return [f"{method} {known}: no such method"]
        listed = [
            self._target(item) for item in route.get("parameters", []) + route[method.lower()].get("parameters", [])
        ]
        found = [f"{method} {known}: unknown parameter {name}" for name in query if not _has(listed, "query", name)]
        needed = [item["name"] for item in listed if item["in"] == "query" and item.get("required")]
        found += [f"{method} {known}: {name} is missing" for name in needed if name not in query]
        schemas = [item["schema"] for item in listed if item["in"] == "body"]
        if body is not None and not schemas:
            found.append(f"{method} {known}: takes no body")
        elif body is not None:
            whole = {**schemas[0], "definitions": self._all["definitions"]}
            errors = jsonschema.Draft4Validator(whole).iter_errors(body)
            found += [f"{method} {known}: {error.message}" for error in errors]
        return found

    def _target(self, item: dict[str, Any]) -> dict[str, Any]:
        reference = item.get("$ref")
        found: dict[str, Any] = self._all["parameters"][reference.rsplit("/", 1)[1]] if reference else item
        return found


def _has(listed: list[dict[str, Any]], place: str, name: str) -> bool:
    return any(item["in"] == place and item["name"] == name for item in listed)
