"""Windows HPC Pack, 2016 Update 3 and 2019, through the REST service of its head node.

**Nothing here was ever run against a real HPC Pack**: neither its software nor a Windows machine could be had. It is
built on Microsoft's specification of the routes ("HPC Pack REST API 2019", MIT), on the reference of the properties
(Microsoft Learn, HPC Web Service API), on Microsoft's public acceptance test of the routes, sample clients and client
library, and tested on our own server that answers as these specify. What is inferred is marked as such.

A job is handed over by three requests: create, add its task, submit. They are not one, so this is what may be left:

* Created, with or without its task: the job is Configuring, "in the system, but has not been submitted to the queue"
  (Understanding Job and Task States). It never starts by itself; only our own submit could start it.
* Submitted, but the answer was lost: the job is in the queue or further.

`submit` raises `Unreachable` for both. `find` sees either by its name. One that is Configuring is *cancelled* there
and reported as ended, never ran; it is not submitted, because a cancel is also a fence: a submit of ours still on
its way is refused by a job that is not Configuring (Operation_OnlyConfigJobsCanBeSubmitted), whereas after a submit
`find` could not distinguish the two, and a job whose task was never added would be submitted empty. Cancelling
is allowed in the state Configuring (Microsoft's client library). `poll` does not list Configuring jobs, so that none
counts as alive.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from edbjobs_server.core.errors import Refused
from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.schedulers.base import (
    ClusterJob,
    ClusterJobStatus,
    Partition,
    Phase,
    Submission,
    SubmitRefused,
    Unreachable,
)
from edbjobs_server.executors.schedulers.windows_hpc.nodes import partitions_of, used_cores
from edbjobs_server.executors.schedulers.windows_hpc.properties import (
    PathMap,
    job_properties,
    rest_properties,
    task_properties,
)
from edbjobs_server.executors.schedulers.windows_hpc.rest import Forbidden, Json, Rest, SaidNo, items, properties
from edbjobs_server.executors.schedulers.windows_hpc.states import (
    CANCELLED,
    LIVE,
    NEVER_SUBMITTED,
    PHASES,
    Clock,
    End,
    end_in_output,
    ending_of,
    nodes_of,
)
from edbjobs_server.util.timeouts import timeout

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_MAX_ROWS = 20_000
_AT_ONCE = 8
_LISTS = 4  # deadlines that a list of several pages may take
# All of them are in the reference's lists for jobs and tasks; asking for another is an error.
_JOB = "Id,Name,Owner,State,SubmitTime,StartTime,EndTime,AllocatedNodes,ErrorMessage"
_CLUSTER_JOB = f"{_JOB},NodeGroups,UnitType,MinCores,MinNodes"
_TASK = "TaskId,State,ExitCode,ErrorMessage,StartTime,EndTime,AllocatedNodes"
# Without any parameter there is nothing but the id that can be wrong; the acceptance test asks only for "some 4xx".
_UNKNOWN_ID = (400, 404, 410)


class WindowsHpc:
    r"""HPC Pack as one of the schedulers; see `edbjobs_server.executors.schedulers.base.Scheduler`.

    Parameters
    ----------
    url : str
        ``https://HEADNODE``; plain HTTP only on loopback.
    credentials : callable
        Gives user, as ``DOMAIN\user``, and password; asked before every request, must not wait. The job runs as
        this user.
    ca_file : Path or None
        Certificates to trust; None: those of the system.
    path_map : mapping of str to str
        Folder of this host to the share that the nodes see it as.
    deadline : float
        Seconds for each request; a list of several pages may take four times as long.

    Raises
    ------
    ValueError
        The address or the path map is wrong.
    """

    name = "windows_hpc"
    template = "windows_hpc.ps1.j2"

    def __init__(
        self,
        url: str,
        credentials: Callable[[], tuple[str, str]],
        ca_file: Path | None = None,
        path_map: Mapping[str, str] = MappingProxyType({}),
        deadline: float = 30.0,
    ) -> None:
        self._rest = Rest(url, credentials, ca_file, deadline)
        self._paths = PathMap(path_map)
        self._deadline = deadline
        self._clock: Clock | None = None
        self._submitting: set[str] = set()

    def node_path(self, path: str) -> str:
        """See `Scheduler.node_path`: by the path map; Windows' own paths mean the same on the nodes."""
        return self._paths.translate(path)

    async def probe(self) -> str:
        """See `Scheduler.probe`."""
        try:
            version = (await self._rest.get("/cluster/version")).body
        except SaidNo as error:
            raise Unreachable(f"{self._rest.base} has no REST service of HPC Pack 2016 U3 or later: {error}") from error
        if not isinstance(version, str):
            raise Unreachable(f"{self._rest.base} did not give its version as text; is this an HPC Pack head node?")
        return version

    def directives(self, allocation: Allocation) -> Sequence[str]:
        """See `Scheduler.directives`. Each is a property of the job, ``Name=Value``; `submit` sends the same."""
        return [f"{name}={value}" for name, value in job_properties(allocation).items()]

    def submit_command(self, submission: Submission) -> Sequence[str]:
        """See `Scheduler.submit_command`. There is no command, but three requests."""
        jobs = f"{self._rest.base}/jobs"
        return ["POST", jobs, "POST", f"{jobs}/ID/tasks", "POST", f"{jobs}/ID/submit"]

    def end_in_output(self, output: str) -> tuple[Ending, str] | None:
        """See `Scheduler.said`. HPC Pack itself writes nothing there (inferred), but PowerShell does."""
        return end_in_output(output)

    async def close(self) -> None:
        """See `Scheduler.close`."""
        await self._rest.close()

    # Handing over ----------------------------------------------------------------------------------------

    async def submit(self, submission: Submission) -> str:
        """See `Scheduler.submit`. The environment stays here: what the job needs is in its script."""
        name = submission.allocation.name
        try:
            job = rest_properties(job_properties(submission.allocation))
            task = rest_properties(task_properties(submission, self._paths))
        except Refused as error:
            raise SubmitRefused(error.message) from error
        self._submitting.add(name)
        try:
            job_id = await self._create(job)
            await self._enqueue(job_id, task)
            return job_id
        finally:
            self._submitting.discard(name)

    async def _create(self, job: Json) -> str:
        try:
            answer = await self._rest.post("/jobs", job)
        except (SaidNo, Forbidden) as error:
            raise SubmitRefused(str(error)) from error
        if isinstance(answer.body, bool) or not isinstance(answer.body, int):
            raise Unreachable(f"the head node made a job, but did not return its id: {str(answer.body)[:100]}")
        return str(answer.body)

    async def _enqueue(self, job_id: str, task: Json) -> None:
        user, password = self._rest.log_in()
        # Where the account's password is not cached on the head node, the job could not run as it.
        login = rest_properties({"UserName": user, "Password": password})
        try:
            await self._rest.post(f"/jobs/{job_id}/tasks", task)
            await self._rest.post(f"/jobs/{job_id}/submit", login)
        except (SaidNo, Forbidden) as error:
            await self._tidy(job_id)
            raise SubmitRefused(str(error)) from error

    async def _tidy(self, job_id: str) -> None:
        """Cancel a job that was refused on its way; should that fail, it still cannot start."""
        try:
            await self._rest.post(f"/jobs/{job_id}/cancel", NEVER_SUBMITTED)
        except (SaidNo, Unreachable) as error:
            _log.warning("job %s was refused and stays in the state Configuring: %s", job_id, error)

    async def find(self, name: str) -> Sequence[ClusterJobStatus]:
        """See `Scheduler.find`. A job that was made but not submitted is cancelled and reported as never ran."""
        query = {"properties": "Id,Name,Owner,State", "sortJobsBy": "Id", "asc": "false", **self._owner()}
        rows = await self._within(_LISTS, self._listed(query))
        found: dict[str, ClusterJobStatus] = {}
        for job_id in [row["Id"] for row in rows if row.get("Name") == name and "Id" in row]:
            status = await self._within(_LISTS, self._see(job_id))
            if status is not None and status.state == "Configuring" and name not in self._submitting:
                status = await self._within(_LISTS, self._call_off(job_id))
            if status is not None and status.name == name:
                found[job_id] = status
        return list(found.values())

    async def _call_off(self, job_id: str) -> ClusterJobStatus | None:
        try:
            await self._rest.post(f"/jobs/{job_id}/cancel", NEVER_SUBMITTED)
        except SaidNo as error:
            _log.warning("job %s, which was never submitted, could not be cancelled: %s", job_id, error)
        status = await self._see(job_id)
        if status is not None and status.state in ("Configuring", "Canceling"):
            raise Unreachable(f"job {job_id} was made but never submitted; it is being cancelled and is not ended yet")
        return status

    # Asking ----------------------------------------------------------------------------------------------

    async def poll(self) -> Mapping[str, ClusterJobStatus]:
        """See `Scheduler.poll`.

        One short list per state of life, in the order of life, so that a job that moves on is seen twice rather than
        never. A filter by the time of the last change would leave out those that have been running for long.
        """
        clock = await self._times()
        rows = await self._within(_LISTS, self._alive(_JOB, self._owner()))
        return {job_id: _status(row, clock) for job_id, row in rows.items()}

    async def look(self, ids: Sequence[str]) -> Mapping[str, ClusterJobStatus | None]:
        """See `Scheduler.look`. For each id one request, and one more for the task of a job that has ended."""
        gate = asyncio.Semaphore(_AT_ONCE)
        errors: list[Unreachable] = []

        async def one(job_id: str) -> tuple[str, ClusterJobStatus | None] | None:
            async with gate:
                try:
                    return job_id, await self._see(job_id)
                except Unreachable as error:
                    errors.append(error)
                    return None

        found = dict(pair for pair in await asyncio.gather(*map(one, ids)) if pair is not None)
        if errors and not found:
            raise errors[0]
        return found

    async def _see(self, job_id: str) -> ClusterJobStatus | None:
        clock = await self._times()
        if not (job_id.isascii() and job_id.isdecimal()):
            return None
        path = f"/jobs/{job_id}"
        try:
            # All properties: the error's number is not in the reference's list, and may be among them all the same.
            job = properties((await self._rest.get(path)).body, path)
        except SaidNo as error:
            if error.status in _UNKNOWN_ID:
                return None
            raise Unreachable(f"GET {path}: {error}") from error
        job.setdefault("Id", job_id)
        if PHASES.get(job.get("State", "")) is not Phase.ENDED:
            return _status(job, clock)
        task = await self._task(job_id)
        return _status(job, clock, task, ending_of(job, task, clock))

    async def _task(self, job_id: str) -> Mapping[str, str]:
        path = f"/jobs/{job_id}/tasks"
        try:
            rows = await self._rest.rows(path, {"properties": _TASK}, 100)
        except SaidNo as error:
            raise Unreachable(f"GET {path}: {error}") from error
        return rows[0] if rows else {}

    async def _alive(self, wanted: str, owner: Mapping[str, str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for state in LIVE:
            query = {"properties": wanted, "$filter": f"JobState eq {state}", "sortJobsBy": "Id", "asc": "true"}
            rows = await self._listed({**query, **owner})
            found.update((row["Id"], row) for row in rows if "Id" in row and PHASES.get(row.get("State", "")))
        return found

    async def _listed(self, query: Mapping[str, str]) -> list[dict[str, str]]:
        try:
            return await self._rest.rows("/jobs", query, _MAX_ROWS)
        except SaidNo as error:
            raise Unreachable(f"GET /jobs: {error}") from error

    def _owner(self) -> dict[str, str]:
        """Ask for our jobs only, where the user is given as the head node writes owners (acceptance test)."""
        user = self._rest.log_in()[0]
        return {"owner": user} if "\\" in user else {}

    async def _times(self) -> Clock:
        if self._clock is None:
            try:
                form = (await self._rest.get("/cluster/info/dateTimeFormat")).body
            except SaidNo as error:
                raise Unreachable(f"GET /cluster/info/dateTimeFormat: {error}") from error
            self._clock = Clock(form if isinstance(form, str) else "")
        return self._clock

    # Ending ----------------------------------------------------------------------------------------------

    async def cancel(self, ids: Sequence[str], *, kill: bool = False) -> None:
        """See `Scheduler.cancel`. `kill` leaves out the cluster's grace period for cancelled tasks."""
        query = {"forced": "true"} if kill else None
        errors: list[str] = []
        for job_id in ids:
            try:
                await self._rest.post(f"/jobs/{job_id}/cancel", CANCELLED, query)
            except SaidNo as error:
                # One that has ended, or is about to, cannot be cancelled (Operation_InvalidCancelJobState).
                status = await self._see(job_id)
                if status is not None and status.phase not in (Phase.ENDING, Phase.ENDED):
                    errors.append(f"job {job_id}: {error}")
        if errors:
            raise Unreachable("not cancelled: " + "; ".join(errors))

    # The cluster -----------------------------------------------------------------------------------------

    async def partitions(self) -> Sequence[Partition]:
        """See `Scheduler.partitions`: the node groups. They have no time limit; job templates do."""
        try:
            nodes = items((await self._rest.get("/cluster/nodes")).body, "/cluster/nodes")
            groups = items((await self._rest.get("/cluster/nodeGroups")).body, "/cluster/nodeGroups")
            used = await self._rest.get("/cluster/nodes/metrics", {"metricNames": "HPCCoresInUse"})
        except SaidNo as error:
            raise Unreachable(f"the node groups of {self._rest.base}: {error}") from error
        return partitions_of(groups, nodes, used_cores(items(used.body, "/cluster/nodes/metrics")))

    async def jobs(self) -> Sequence[ClusterJob]:
        """See `Scheduler.jobs`."""
        clock = await self._times()
        rows = await self._within(_LISTS, self._alive(_CLUSTER_JOB, {}))
        return [_cluster_job(row, clock) for row in rows.values()]

    async def _within(self, deadlines: int, work: Awaitable[_T]) -> _T:
        seconds = self._deadline * deadlines
        try:
            async with timeout(seconds):
                return await work
        except (asyncio.TimeoutError, TimeoutError):
            raise Unreachable(f"{self._rest.base} did not give a whole list within {seconds:g} s") from None


_NO_TASK: Mapping[str, str] = MappingProxyType({})


def _status(
    job: Mapping[str, str], clock: Clock, task: Mapping[str, str] = _NO_TASK, end: End | None = None
) -> ClusterJobStatus:
    state = job.get("State", "")
    phase = PHASES.get(state)
    if phase is None:
        raise Unreachable(f"job {job.get('Id', '')} is in a state that is not known: {state!r}")
    waits = state == "Configuring"
    return ClusterJobStatus(
        id=job.get("Id", ""),
        name=job.get("Name", ""),
        phase=phase,
        state=state,
        reason=job.get("ErrorMessage", "") if end is None else end.message,
        never=waits,
        nodes=nodes_of(job.get("AllocatedNodes") or task.get("AllocatedNodes")),
        submit_time=clock.seconds(job.get("SubmitTime")),
        start_time=clock.seconds(job.get("StartTime") or task.get("StartTime")),
        end_time=clock.seconds(job.get("EndTime") or task.get("EndTime")) if phase is Phase.ENDED else None,
        ending=end.ending if end is not None else None,
        exit_code=end.exit_code if end is not None else None,
        message="it is not in the queue and has to be submitted again" if waits else "",
    )


def _cluster_job(row: Mapping[str, str], clock: Clock) -> ClusterJob:
    nodes = nodes_of(row.get("AllocatedNodes"))
    by_node = row.get("UnitType", "").lower() in ("node", "2")
    least = row.get("MinNodes" if by_node else "MinCores", "")
    number = int(least) if least.isdecimal() else 0
    return ClusterJob(
        id=row["Id"],
        name=row.get("Name", ""),
        user=row.get("Owner", ""),
        partition=row.get("NodeGroups", ""),
        state=row.get("State", ""),
        reason=row.get("ErrorMessage", ""),
        node_count=len(nodes) or (number if by_node else 0),
        core_count=0 if by_node else number,
        nodes=tuple(nodes),
        start_time=clock.seconds(row.get("StartTime")),
    )
