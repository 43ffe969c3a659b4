"""What a job's configuration asks for, from the request to the drafted job: presence, defaults and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from edbjobs.v1 import job_config_pb2, job_state_pb2
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs_server.contract.accepted import accepted_config
from edbjobs_server.core.cluster_policy import ClusterPolicy
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.job import Job
from edbjobs_server.core.limits import Host, Limits
from edbjobs_server.core.principal import Principal, Role
from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.schedulers.slurm.directives import directives
from edbjobs_server.manager.run_spec import run_spec
from edbjobs_server.manager.submission import Rules, draft
from edbjobs_server.solver.releases import Release
from google.protobuf.duration_pb2 import Duration

GIB = 1024**3
ME = Principal("me", Role.ADMIN)


class Flux:
    """The scheduler of a plug-in, which takes SLURM's directives."""

    name = "flux"
    template = "slurm.sh.j2"

    def node_path(self, path: str) -> str:
        return path

    def directives(self, allocation: Allocation) -> Sequence[str]:
        return directives(allocation)


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    return Rules(
        releases=[Release("2025.2", "252", Path("/opt/ansysedt"), "settings")],
        schedulers=frozenset({"local", "flux"}),
        host=Host(cores=8, memory_bytes=16 * GIB),
        clusters={"flux": Flux()},  # type: ignore[dict-item]
        policy=ClusterPolicy(shared_dir=tmp_path),
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / "p.aedt"
    path.touch()
    return path


def drafted(project: Path, rules: Rules, limits: Limits | None = None, **values: Any) -> Job:
    config = job_config_pb2.JobConfig(project_path=str(project), **values)
    return draft(pb.SubmitJobRequest(config=config), ME, rules, limits or Limits())


def refused(project: Path, rules: Rules, **values: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        drafted(project, rules, **values)
    return caught.value


def argv(job: Job, rules: Rules) -> list[str]:
    return list(run_spec(job, accepted_config(job.config), rules, {}).argv)


def test_the_defaults_of_a_local_job(project: Path, rules: Rules) -> None:
    job = drafted(project, rules)
    spec = run_spec(job, accepted_config(job.config), rules, {"PATH": "/bin"})
    assert (job.spec.scheduler, job.spec.cores, job.spec.memory_bytes, job.warnings) == ("local", 1, 0, ())
    assert (spec.time_limit, spec.cancel_grace_period, spec.additions) == (None, 30.0, {})
    assert "list=localhost:1:1:90%" in spec.argv
    assert [word for word in spec.argv if word in ("-distributed", "-auto", "-waitforlicense")] == []
    assert {"-ng", "-monitor"} <= set(spec.argv)


def test_the_configuration_is_kept_as_it_was_sent(project: Path, rules: Rules) -> None:
    sent = job_config_pb2.JobConfig(project_path=str(project), memory_bytes=0, monitor=False, product="HFSS")
    sent.time_limit.SetInParent()
    sent.retry.SetInParent()
    sent.machines.add()
    job = draft(pb.SubmitJobRequest(config=sent), ME, rules, Limits())
    assert job_config_pb2.JobConfig.FromString(job.config) == sent
    assert "-monitor" not in argv(job, rules)


def test_a_time_limit_of_0_is_unlimited_here_and_at_the_scheduler(project: Path, rules: Rules) -> None:
    for scheduler in ("local", "flux"):
        job = drafted(project, rules, scheduler=scheduler, time_limit=Duration())
        assert job.spec.time_limit == 0.0
        spec = run_spec(job, accepted_config(job.config), rules, {})
        assert spec.time_limit is None
        if spec.allocation is not None:
            assert "time=UNLIMITED" in directives(spec.allocation)
    day = drafted(project, rules, scheduler="flux", time_limit=Duration(seconds=86_400))
    allocation = run_spec(day, accepted_config(day.config), rules, {}).allocation
    assert allocation is not None
    assert "time=1-00:00:00" in directives(allocation)


def test_a_plug_in_is_named_as_any_scheduler(project: Path, rules: Rules) -> None:
    options = job_config_pb2.SchedulerOptions(nodes=2, cores_per_node=4, memory_bytes_per_node=GIB)
    job = drafted(project, rules, scheduler="flux", scheduler_options=options)
    assert (job.spec.scheduler, job.spec.cores, job.spec.memory_bytes) == ("flux", 8, 2 * GIB)
    assert job.warnings == ()
    assert "-distributed" in argv(job, rules)


@pytest.mark.parametrize("name", ["lsf", "nonsense", "SLURM", "Local"])
def test_a_scheduler_that_is_not_there_is_refused(project: Path, rules: Rules, name: str) -> None:
    found = refused(project, rules, scheduler=name)
    assert (found.reason, found.fields) == ("NO_SCHEDULER", {"config.scheduler": "one of flux, local"})


def test_local_may_be_forbidden(project: Path, rules: Rules) -> None:
    found = refused(project, replace(rules, no_local=lambda: "not on a login node"))
    assert (found.reason, list(found.fields)) == ("LOCAL_NOT_ALLOWED", ["config.scheduler"])


def test_scheduler_options_of_a_local_run_are_ignored_with_a_warning(project: Path, rules: Rules) -> None:
    options = job_config_pb2.SchedulerOptions(partition="long", nodes=3)
    (warning,) = drafted(project, rules, scheduler_options=options).warnings
    assert "scheduler_options are ignored" in warning
    assert "partition" in warning
    assert "nodes" in warning
    assert drafted(project, rules, scheduler_options=job_config_pb2.SchedulerOptions()).warnings == ()


@pytest.mark.parametrize(
    ("values", "field"),
    [({"cores": 4}, "cores"), ({"memory_bytes": GIB}, "memory_bytes"), ({"machines": [{"cores": 2}]}, "machines")],
)
def test_cores_and_memory_are_of_this_host_only(
    project: Path, rules: Rules, values: dict[str, Any], field: str
) -> None:
    assert list(refused(project, rules, scheduler="flux", **values).fields) == [f"config.{field}"]
    job = drafted(project, rules, **values)
    assert (job.spec.cores, job.spec.memory_bytes) in ((4, 0), (1, GIB), (2, 0))


def test_a_license_of_0_needs_none(project: Path, rules: Rules) -> None:
    limits = Limits(licenses={"hfss": 0, "hpc": 4})
    job = drafted(project, rules, limits, licenses={"hfss": 0, "hpc": 4})
    assert job.spec.licenses == (("hpc", 4),)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"layout_options": {"enable_gpu": False}, "batch_options": {"HFSS 3D Layout Design/EnableGPU": "1"}},
         "batch_options.HFSS 3D Layout Design/EnableGPU"),
        ({"license_wait_limit": {"seconds": 5}}, "license_wait_limit"),
        ({"labels": {f"k{number}": "x" * 250 for number in range(17)}}, "labels"),
        ({"retry": {"reasons": [job_state_pb2.END_REASON_NORMAL]}}, "retry.reasons"),
        ({"retry": {"reasons": [job_state_pb2.END_REASON_CANCELLED]}}, "retry.reasons"),
        ({"retry": {"reasons": [job_state_pb2.END_REASON_NOT_STARTED]}}, "retry.reasons"),
        ({"setup": "S"}, "design"),
        ({"cores": 0}, "cores"),
        ({"scheduler_options": {"nodes": 0}}, "scheduler_options.nodes"),
        ({"cancel_grace_period": {"seconds": 3601}}, "cancel_grace_period"),
        ({"not_before_time": {"seconds": 253_402_300_800}}, "not_before_time"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_field(project: Path, rules: Rules, values: dict[str, Any], field: str) -> None:
    found = refused(project, rules, **values)
    assert (found.reason, list(found.fields)) == ("INVALID_JOB", [f"config.{field}"])


def test_a_grace_period_and_delays_of_0_count(project: Path, rules: Rules) -> None:
    retry = job_config_pb2.RetryOptions(initial_delay=Duration())
    job = drafted(project, rules, cancel_grace_period=Duration(), retry=retry)
    assert run_spec(job, accepted_config(job.config), rules, {}).cancel_grace_period == 0.0
    assert (job.spec.retry.max_attempts, job.spec.retry.delay(1), job.spec.retry.max_delay) == (3, 0.0, 600.0)
    assert drafted(project, rules).spec.retry.max_attempts == 1


def test_the_later_start_is_the_services(project: Path, rules: Rules) -> None:
    from google.protobuf.timestamp_pb2 import Timestamp

    job = drafted(project, rules, scheduler="flux", not_before_time=Timestamp(seconds=4_000_000_000))
    assert job.next_attempt_time == 4_000_000_000.0
    allocation = run_spec(job, accepted_config(job.config), rules, {}).allocation
    assert allocation is not None
    assert not any(line.startswith("begin") for line in directives(allocation))
    assert accepted_config(job.config).time_limit != timedelta(0)
