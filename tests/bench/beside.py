"""This checkout and another one in one run, round by round in turn: ``python -m bench --beside PATH NAME ...``.

A machine that has other work slows both down alike, so the ratio can be compared from run to run; and so can the
processor time for one operation: that of the service and of all its descendants, those that have ended included.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
from edbjobs.v1 import jobs_messages_pb2 as pb

from bench import runs, submits, watchers
from bench.load import latencies, rate
from bench.service import TESTS, MeasuredService, pause, projects, request, service
from bench.table import number

HERE = TESTS.parent
ROUNDS = 5
SECONDS = 2.0
Round = Callable[[], "tuple[float, float]"]  # gives the figure, and how many operations that took


@dataclass(frozen=True)
class Compared:
    """A measure of two checkouts.

    Attributes
    ----------
    prepare : callable
        Makes the round of a service; its second argument is a folder for what that needs.
    paused : bool
        Nothing starts.
    script : str
        What the solver does; ``{folder}`` is the folder.
    """

    name: str
    unit: str
    prepare: Callable[[MeasuredService, Path], Round]
    more_is_better: bool = True
    paused: bool = False
    script: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """Medians of this checkout and of the other one: the figure, and microseconds of processor time an operation."""

    measure: Compared
    values: tuple[float, float]
    costs: tuple[float, float]

    @property
    def gain(self) -> float:
        """How much better this checkout is: 2 is twice as good."""
        here, there = self.values
        return here / there if self.measure.more_is_better else there / here


def _noop(running: MeasuredService, folder: Path) -> Round:
    paths = projects(folder / "projects", runs.JOBS)
    return lambda: (asyncio.run(runs.run_all(running, paths)), len(paths))


def _start(running: MeasuredService, folder: Path) -> Round:
    (project,) = projects(folder / "projects", 1)
    shown = os.open(folder / "pipe", os.O_RDWR)
    return lambda: (statistics.median(runs.start_times(running, project, shown, 20)), 20)


def _with_channel(running: MeasuredService, folder: Path, measure: Callable[[Any], Any]) -> Any:
    (project,) = projects(folder / "projects", 1)

    async def run() -> Any:
        async with grpc.aio.insecure_channel(running.target) as channel:
            return await measure(submits.submitter(channel, project))

    return asyncio.run(run())


def _submit(running: MeasuredService, folder: Path) -> Round:
    def run() -> tuple[float, float]:
        p50, _ = _with_channel(running, folder, lambda submit: latencies(submit, 300, 20))
        return p50, 320

    return run


def _submits(running: MeasuredService, folder: Path) -> Round:
    def run() -> tuple[float, float]:
        found = _with_channel(running, folder, lambda submit: rate(submit, submits.CLIENTS, SECONDS))
        return found, found * SECONDS

    return run


def _rest(running: MeasuredService, folder: Path) -> Round:
    (project,) = projects(folder / "projects", 1)
    url, program = running.endpoint["http"] + submits.REST_PATH, running.settings["solvers"][0]

    def run() -> tuple[float, float]:
        found = asyncio.run(submits.rest_rate(url, project, program, SECONDS))
        return found, found * SECONDS

    return run


def _batch(running: MeasuredService, folder: Path) -> Round:
    paths = projects(folder / "projects", 1000)

    def run() -> tuple[float, float]:
        items = [request(path, request_id=uuid.uuid4().hex) for path in paths]
        return submits.batch_time(running, pb.SubmitJobsRequest(requests=items)), len(items)

    return run


def _watchers(running: MeasuredService, folder: Path) -> Round:
    (project,) = projects(folder / "projects", 1)
    return lambda: (
        asyncio.run(watchers.events_rate(running.target, project)),
        watchers.WATCHERS * watchers.EVENTS,
    )


COMPARED: Mapping[str, Compared] = {
    "noop": Compared("no-op jobs, 2 at a time", "/s", _noop, settings={"max_local_jobs": runs.AT_ONCE}),
    "submits": Compared("submits, 16 clients, gRPC", "/s", _submits, paused=True),
    "rest": Compared("submits, 16 clients, REST", "/s", _rest, paused=True, settings={"http": "127.0.0.1:0"}),
    "batch": Compared("SubmitJobs of 1,000", "ms", _batch, more_is_better=False, paused=True),
    "submit": Compared("submit, one client, p50", "ms", _submit, more_is_better=False, paused=True),
    "start": Compared("submit → started, p50", "ms", _start, more_is_better=False, script="echo > {folder}/pipe"),
    "watchers": Compared("events to 1,000 watchers", "/s", _watchers, paused=True),
}


def compare(name: str, folder: Path, other: Path, rounds: int = ROUNDS) -> Iterator[Pair]:
    """Measure both in turn; the first round of each only warms up."""
    measure = COMPARED[name]
    with ExitStack() as stack:
        sides = [_Side(measure, folder / side, tree, stack) for side, tree in (("here", HERE), ("there", other))]
        for round_number in range(rounds + 1):
            for side in sides if round_number % 2 else reversed(sides):
                side.run(warm=round_number == 0)
    here, there = (side.medians() for side in sides)
    yield Pair(measure, (here[0], there[0]), (here[1], there[1]))


class _Side:
    def __init__(self, measure: Compared, folder: Path, tree: Path, stack: ExitStack) -> None:
        folder.mkdir()
        os.mkfifo(folder / "pipe")
        script = measure.script.format(folder=folder)
        self._service = stack.enter_context(service(folder / "s", tree=tree, script=script, **measure.settings))
        if measure.paused:
            pause(self._service)
        self._round = measure.prepare(self._service, folder)
        self._found: list[tuple[float, float]] = []

    def run(self, warm: bool) -> None:
        before = self._service.spent()
        value, operations = self._round()
        cost = (self._service.spent() - before) / operations * 1e6
        if not warm:
            self._found.append((value, cost))

    def medians(self) -> tuple[float, float]:
        values, costs = zip(*self._found, strict=True)
        return statistics.median(values), statistics.median(costs)


def comparison(pairs: Sequence[Pair]) -> str:
    """Make a table; `gain` is how much better this checkout is, its CPU how much less it takes."""
    lines = ["| measure | here | there | gain | CPU here | CPU there | gain |", "|---|---|---|---|---|---|---|"]
    for pair in pairs:
        (here, there), (cost, cost_there) = pair.values, pair.costs
        unit = pair.measure.unit
        lines.append(
            f"| {pair.measure.name} | {number(here)} {unit} | {number(there)} {unit} | {pair.gain:.2f} "
            f"| {number(cost)} µs | {number(cost_there)} µs | {cost_there / cost if cost else 0:.2f} |"
        )
    return "\n".join(lines)
