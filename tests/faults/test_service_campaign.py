"""A small sample of the campaign; `python -m faults.campaign` runs longer ones."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from faults.campaign import rounds

FAULTS = 5
SECONDS = 20.0  # a slow machine throws fewer of them


@pytest.mark.parametrize("number", range(3))
def test_sample_of_faults(tmp_path: Path, number: int) -> None:
    # Of each three seeds in a row one cuts the watcher off.
    seed = random.randrange(1000) * 30 + 1 + number
    print("seed", seed)
    report = rounds.run(tmp_path, seed, FAULTS, SECONDS)
    print(report)
    assert report.breaches == {}
    assert report.faults


def test_clock_steps(tmp_path: Path) -> None:
    seed = random.randrange(1_000_000)
    print("seed", seed)
    report = rounds.run_clock(tmp_path, seed, 3, SECONDS)
    print(report)
    assert report.breaches == {}
