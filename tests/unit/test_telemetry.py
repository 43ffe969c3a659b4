from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from edbjobs_server.core.gates import HostLoad
from edbjobs_server.telemetry import run_usage, volumes
from edbjobs_server.telemetry.host import HostSampler, Sample, capacity
from edbjobs_server.telemetry.processors import cgroup_quota, usable_processors
from edbjobs_server.telemetry.run_usage import RunTimes, process_times, tree_times
from edbjobs_server.telemetry.volumes import Volume, Volumes

MIB = 1024**2
BURN = "while True: pass"


@pytest.fixture
def burning() -> Iterator[subprocess.Popen[bytes]]:
    """A process that burns a core in a child, as a supervisor's solver does."""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}])"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    yield process
    os.killpg(process.pid, 9)
    process.wait()


async def sampled(sampler: HostSampler, count: int) -> Sample:
    task = asyncio.create_task(sampler.run())
    try:
        for _ in range(count):
            sample = await sampler.next(10)
        return sample
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_sample_tells_processors_memory_and_volumes(tmp_path: Path) -> None:
    seen: list[Sample] = []
    sampler = HostSampler(tmp_path, 0.1, on_sample=seen.append)
    assert sampler.latest is None
    sample = await sampled(sampler, 2)
    assert sample is seen[-1] is sampler.latest
    assert abs(sample.time - time.time()) < 10
    assert 0 <= sample.cpu_percent <= 100
    assert 0 <= sample.foreign_cpu_percent <= 100
    assert 1 <= sample.cpu_count <= sample.host_cpu_count
    assert sample.memory_used + sample.memory_available == sample.memory_total > MIB
    space = os.statvfs(tmp_path)
    assert sample.volumes[0].path == str(tmp_path)
    assert sample.volumes[0].total == space.f_blocks * space.f_frsize
    assert sample.load() == HostLoad(
        sample.foreign_cpu_percent,
        sample.host_cpu_count,
        sample.memory_available,
        tuple((volume.path, volume.free) for volume in sample.volumes),
    )


async def test_what_our_runs_use_is_not_foreign(tmp_path: Path, burning: subprocess.Popen[bytes]) -> None:
    ours = HostSampler(tmp_path, 0.5, run_pids=lambda: [burning.pid])
    theirs = HostSampler(tmp_path, 0.5)
    process, start = psutil.Process(burning.pid), time.monotonic()
    before = sum(process.cpu_times()[:2])
    without, with_burning = await asyncio.gather(sampled(ours, 5), sampled(theirs, 5))
    # On a busy machine the process does not get a whole core.
    share = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - start)
    one_core = 100.0 / without.host_cpu_count
    # The rest of the host moves both alike: what the process used is what they differ by.
    difference = with_burning.foreign_cpu_percent - without.foreign_cpu_percent
    assert difference > 0.3 * min(1.0, share) * one_core


async def test_a_failing_sample_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = HostSampler(tmp_path, 0.1)
    failures = iter([OSError("out of file descriptors")] * 2)
    sample = sampler._sample

    def sometimes(*arguments: Any) -> Sample:
        for error in failures:
            raise error
        return sample(*arguments)

    monkeypatch.setattr(sampler, "_sample", sometimes)
    await sampled(sampler, 1)
    assert sampler.latest is not None


async def test_a_hanging_volume_holds_neither_the_loop_nor_the_next_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = threading.Event()
    asked = []

    def usage(path: str) -> tuple[int, int, int]:
        asked.append(path)
        if path == "/hung":
            hang.wait(30)
        return hash(path), 10, 5

    monkeypatch.setattr(volumes, "_usage", usage)
    monkeypatch.setattr(volumes, "DEADLINE_SECONDS", 0.1)
    sampler = HostSampler(tmp_path, 0.1, project_paths=lambda: ["/hung", "/fine"])
    try:
        sample = await sampled(sampler, 3)
        assert {volume.path: volume.unreachable for volume in sample.volumes}.items() >= {
            "/hung": True,
            "/fine": False,
        }.items()
        assert "/hung" not in dict(sample.load().disks)
        assert asked.count("/hung") == 1
        assert asked.count("/fine") == 3
    finally:
        hang.set()


def test_a_volume_is_told_once_and_comes_back_when_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "DEADLINE_SECONDS", 0.2)
    hang = threading.Event()

    def usage(path: str) -> tuple[int, int, int]:
        if path == "/hung":
            assert hang.wait(30)
        if path == "/missing":
            raise FileNotFoundError(path)
        return (1 if path in ("/a", "/a/b") else 2), 10, 5

    asked = Volumes(usage)
    found = asked.sample(["/a", "/hung"], ["/a/b", "/missing"])
    never = Volume("/hung", 0, 0, unreachable=True)
    assert found == (Volume("/a", 10, 5), never)
    assert asked.sample(["/a", "/hung"]) == (Volume("/a", 10, 5), never)
    (hanging,) = (probe for probe in asked._open.values() if not probe.done.is_set())
    hang.set()
    assert hanging.done.wait(10)
    assert asked.sample(["/a", "/hung"]) == (Volume("/a", 10, 5), Volume("/hung", 10, 5))
    hang.clear()
    assert asked.sample(["/a", "/hung"]) == (Volume("/a", 10, 5), Volume("/hung", 10, 5, unreachable=True))
    hang.set()


def test_threads_for_hanging_volumes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "DEADLINE_SECONDS", 0.2)
    hang, started = threading.Event(), []

    def usage(path: str) -> tuple[int, int, int]:
        started.append(path)
        if path != "/own":
            hang.wait(30)
        return 1, 10, 5

    asked = Volumes(usage)
    try:
        asked.sample(["/own"], [f"/a{number}" for number in range(500)])
        found = asked.sample(["/own"], [f"/b{number}" for number in range(500)])
        assert len(started) == 2 + volumes.MAX_FURTHER
        assert [volume.path for volume in found if not volume.unreachable] == ["/own"]
    finally:
        hang.set()


def test_run_times_grow_only_and_never_faster_than_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    table: dict[int, float] = {7: 100.0}
    monkeypatch.setattr(run_usage, "tree_times", lambda roots: {k: v for k, v in table.items() if k in roots})
    times = RunTimes()
    assert times.total([7], 1000.0, 500.0) == 0.0  # what was before is not counted
    table[7] = 103.0
    assert times.total([7], 1005.0, 504.0) == 3.0
    table[8] = 2.0  # started since
    assert times.total([7, 8], 1010.0, 514.0) == 5.0
    del table[7]  # ended: taken to have gone on as before, here not at all
    table[8] = 4.0
    assert times.total([7, 8], 1015.0, 524.0) == 7.0
    del table[8]  # ended: it had used 2 s in 5 s
    assert times.total([], 1020.0, 534.0) == pytest.approx(9.0)
    assert times.total([], 1025.0, 544.0) == pytest.approx(9.0)
    table[9] = 5000.0  # adopted with a long past
    assert times.total([9], 1030.0, 550.0) == pytest.approx(15.0)


def test_a_tree_counts_all_that_descends_from_its_root(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {1: (0, 9.0), 10: (1, 1.0), 11: (10, 2.0), 12: (11, 4.0), 20: (1, 8.0), 30: (31, 1.0), 31: (30, 1.0)}
    monkeypatch.setattr(run_usage, "process_times", lambda: table)
    assert tree_times({10, 20, 99}) == {10: 7.0, 20: 8.0}
    assert tree_times(set()) == {}


@pytest.mark.parametrize("read", [process_times, run_usage._from_psutil])
def test_the_table_of_processes_knows_this_one(read: Callable[[], run_usage.ProcessTimes]) -> None:
    parent, seconds = read()[os.getpid()]
    assert parent == os.getppid()
    assert seconds == pytest.approx(sum(os.times()[:4]), abs=0.5)


def test_quotas_of_both_cgroup_versions_and_of_all_above_count(tmp_path: Path) -> None:
    proc = tmp_path / "cgroup"
    proc.write_text("3:cpuset:/x\n2:cpu,cpuacct:/a\n0::/b/c\n")
    assert cgroup_quota(proc, tmp_path) is None
    for folder in ("cpu/a", "b/c"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "cpu/a/cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu/a/cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "b/c/cpu.max").write_text("max 100000\n")
    assert cgroup_quota(proc, tmp_path) is None
    (tmp_path / "b/cpu.max").write_text("250000 100000\n")
    assert cgroup_quota(proc, tmp_path) == 2.5
    (tmp_path / "cpu/a/cpu.cfs_quota_us").write_text("150000\n")
    assert cgroup_quota(proc, tmp_path) == 1.5
    assert cgroup_quota(tmp_path / "none", tmp_path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is told by Linux only")
def test_affinity_counts() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_processors() == 1
        assert capacity().cores == 1
    finally:
        os.sched_setaffinity(0, before)
    assert capacity().memory_bytes > 16 * MIB
