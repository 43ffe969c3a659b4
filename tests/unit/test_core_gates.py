from __future__ import annotations

from dataclasses import replace

import pytest
from edbjobs_server.core.gates import Gate, HostLoad, gate
from edbjobs_server.core.limits import Limits
from edbjobs_server.core.states import Waiting
from hypothesis import given
from hypothesis import strategies as st

GIB = 1024**3
IDLE = HostLoad(0.0, 16, 64 * GIB, (("/state", 100 * GIB), ("/tmp", 50 * GIB)))
LIMITS = Limits(max_cpu_percent=80, min_free_memory_bytes=8 * GIB, min_free_disk_bytes=10 * GIB)


def reason(found: Gate | None) -> Waiting | None:
    return found.reason if found else None


def test_an_idle_host_lets_all_start() -> None:
    assert gate(LIMITS, IDLE) is None


def test_no_gate_is_set_by_default() -> None:
    assert gate(Limits(), HostLoad(100.0, 1, 0, (("/", 0),)), 1000, 10**9) is None
    assert gate(Limits(), None) is None
    assert gate(Limits(min_free_memory_bytes=0, min_free_disk_bytes=0), HostLoad(100.0, 1, 0, (("/", 0),))) is None
    assert gate(Limits(min_free_memory_bytes=0, min_free_disk_bytes=0), None) is None


def test_a_limit_of_100_percent_counts_what_has_just_started() -> None:
    assert gate(Limits(max_cpu_percent=100), HostLoad(100.0, 1, 0)) is None
    assert reason(gate(Limits(max_cpu_percent=100), HostLoad(100.0, 1, 0), 1)) is Waiting.CPU_GATE


def test_a_limit_of_0_percent_lets_nothing_start() -> None:
    found = gate(Limits(max_cpu_percent=0), HostLoad(0.0, 1, 0))
    assert found is not None
    assert found.detail.endswith("nothing starts while max_cpu_percent is 0")


@pytest.mark.parametrize(
    "limits", [Limits(max_cpu_percent=80), Limits(min_free_memory_bytes=1), Limits(min_free_disk_bytes=1)]
)
def test_before_the_first_sample_a_gate_that_is_set_is_shut(limits: Limits) -> None:
    found = gate(limits, None)
    assert found is not None
    assert "not been sampled" in found.detail


@pytest.mark.parametrize(
    ("load", "cores", "memory", "wanted"),
    [
        (replace(IDLE, foreign_cpu_percent=80.0), 0, 0, None),  # nothing starts above it: at it, things do
        (replace(IDLE, foreign_cpu_percent=80.1), 0, 0, Waiting.CPU_GATE),
        (replace(IDLE, foreign_cpu_percent=30.0), 8, 0, None),
        (replace(IDLE, foreign_cpu_percent=30.0), 9, 0, Waiting.CPU_GATE),
        (replace(IDLE, memory_available_bytes=8 * GIB), 0, 0, None),
        (replace(IDLE, memory_available_bytes=8 * GIB - 1), 0, 0, Waiting.MEMORY_GATE),
        (IDLE, 0, 56 * GIB, None),
        (IDLE, 0, 56 * GIB + 1, Waiting.MEMORY_GATE),
        (replace(IDLE, disks=(("/state", 10 * GIB),)), 0, 0, None),
        (replace(IDLE, disks=(("/state", 100 * GIB), ("/p", 10 * GIB - 1))), 0, 0, Waiting.DISK_GATE),
        (replace(IDLE, disks=()), 0, 0, None),  # a volume that does not answer shuts nothing
    ],
)
def test_each_gate_shuts_at_its_limit(load: HostLoad, cores: int, memory: int, wanted: Waiting | None) -> None:
    assert reason(gate(LIMITS, load, cores, memory)) == wanted


def test_the_detail_tells_the_numbers() -> None:
    found = gate(LIMITS, replace(IDLE, foreign_cpu_percent=61.0), 4)
    assert found is not None
    assert "61 %" in found.detail
    assert "25 %" in found.detail
    assert "80 %" in found.detail
    found = gate(LIMITS, replace(IDLE, memory_available_bytes=4 * GIB), 0, GIB)
    assert found is not None
    assert "4.0 GiB free, 1.0 GiB of it" in found.detail
    found = gate(LIMITS, replace(IDLE, disks=(("/p", GIB),)))
    assert found is not None
    assert found.detail == "disk: 1.0 GiB free at /p; nothing starts with less than 10 GiB"


def test_starts_within_one_second_see_each_other() -> None:
    started = 0
    while started < 16 and gate(LIMITS, IDLE, starting_cores=4 * started) is None:
        started += 1
    assert started == 4  # 0, 25, 50, 75 % are let through, 100 % is not


numbers = st.integers(0, 2**50)
loads = st.builds(
    HostLoad,
    st.floats(0, 100),
    st.integers(0, 256),
    numbers,
    st.lists(st.tuples(st.sampled_from(["/a", "/b"]), st.integers(0, 10**13))).map(tuple),
)


@given(
    st.builds(Limits, max_cpu_percent=st.floats(0, 100), min_free_memory_bytes=numbers, min_free_disk_bytes=numbers),
    loads,
    st.integers(0, 1024),
    st.integers(0, 10**7),
)
def test_more_load_never_opens_a_gate(limits: Limits, load: HostLoad, cores: int, memory: int) -> None:
    if gate(limits, load, cores, memory) is None:
        return
    assert gate(limits, load, cores + 1, memory + 1) is not None
    assert gate(limits, replace(load, foreign_cpu_percent=100.0), cores, memory) is not None
    assert gate(limits, replace(load, memory_available_bytes=0), cores, memory) is not None


@given(loads, st.integers(0, 1024), st.integers(0, 10**7))
def test_what_is_not_set_shuts_nothing(load: HostLoad, cores: int, memory: int) -> None:
    assert gate(Limits(), load, cores, memory) is None
