"""When a scheduler is asked."""

from __future__ import annotations

from itertools import pairwise

import pytest
from edbjobs_server.executors.cluster.poll_timing import HURRY_SECONDS, PollTiming


def asked(timing: PollTiming, end: float, step: float = 0.5) -> list[float]:
    """Times of the questions about all runs up to `end`, each answered at once."""
    found = []
    for number in range(int(end / step) + 1):
        now = number * step
        if timing.is_due(now):
            timing.asked(now)
            found.append(now)
    return found


def retries(timing: PollTiming, count: int) -> list[float]:
    """Gaps between the questions to one that never answers."""
    timing.asked(0.0)
    times = [timing.interval]
    while len(times) <= count:
        timing.failed(times[-1])
        now = times[-1]
        while not timing.is_due(now):
            now += 0.5
        times.append(now)
    return [after - before for before, after in pairwise(times)]


def test_all_runs_are_asked_about_every_interval() -> None:
    assert asked(PollTiming(interval=30), 100) == [0, 30, 60, 90]


def test_a_floor_above_the_interval_is_the_interval() -> None:
    assert asked(PollTiming(interval=30, floor=45), 100) == [0, 45, 90]


def test_after_a_submit_it_is_asked_sooner_a_few_times() -> None:
    timing = PollTiming(interval=300)
    timing.asked(0.0)
    timing.hurry(0.0)
    assert asked(timing, 320)[: len(HURRY_SECONDS)] == [*HURRY_SECONDS]
    assert asked(timing, 320) == []


def test_no_hurry_goes_below_the_floor() -> None:
    timing = PollTiming(interval=300, floor=10)
    timing.asked(0.0)
    for now in range(10):
        timing.hurry(float(now))
    times = [0.0, *asked(timing, 100)]
    assert len(times) > 2
    assert min(after - before for before, after in pairwise(times)) >= 10
    assert not timing.may_ask(times[-1] + 9)


@pytest.mark.parametrize(
    ("given", "gaps"),
    [
        ({"interval": 30}, [5, 10, 20, 40, 60, 60, 60]),
        ({"interval": 2}, [2, 4, 8, 16, 32, 60, 60]),
        ({"interval": 30, "floor": 15}, [15, 15, 20, 40, 60, 60]),
        ({"interval": 300, "floor": 120}, [120, 120, 120, 120, 120, 160, 300, 300]),
    ],
)
def test_one_that_is_silent_is_asked_ever_less(given: dict[str, float], gaps: list[float]) -> None:
    assert retries(PollTiming(**given), len(gaps)) == gaps


def test_nothing_hurries_one_that_is_silent() -> None:
    timing = PollTiming(interval=30)
    timing.failed(0.0)
    timing.hurry(0.0)
    assert not timing.is_due(4.0)
    assert not timing.may_ask(4.0)
    assert timing.is_due(5.0)


def test_an_answer_ends_the_waiting() -> None:
    timing = PollTiming(interval=30)
    for now in (0.0, 5.0, 15.0):
        timing.failed(now)
    timing.asked(35.0)
    timing.failed(65.0)
    assert timing.is_due(70.0)


def test_a_look_at_a_few_runs_counts_for_the_floor_alone() -> None:
    timing = PollTiming(interval=30, floor=5)
    timing.asked(0.0)
    timing.looked(28.0)
    assert not timing.is_due(30.0)
    assert timing.is_due(33.0)
