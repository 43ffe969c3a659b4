"""Jobs as JSON text: equal to what the models write, with every documented member in its order."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from edbjobs.v1 import convergence_pb2, job_config_pb2, job_pb2, job_state_pb2
from edbjobs_server.contract.accepted import accepted_config
from edbjobs_server.contract.codec import timestamp
from edbjobs_server.gateway.documented.config import HFSSSimulationConfig
from edbjobs_server.gateway.documented.translation import from_job_config, to_job_config
from edbjobs_server.gateway.json_values import times
from edbjobs_server.gateway.rest import config_text as module
from edbjobs_server.gateway.rest.bodies import Job
from edbjobs_server.gateway.rest.config_text import config_text, written_text
from edbjobs_server.gateway.rest.job_text import _minute, job_text, jobs_text
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

NODES = [{"hostname": "n1", "cores": 4, "tasks": 2}, {"hostname": "n2", "gpus": 1}]
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="'\":-"), max_size=8)
CONFIGS = st.fixed_dictionaries(
    {"project_path": TEXT.map(lambda name: f"/data/100%s {name}.aedb")},
    optional={
        "jobid": st.sampled_from(["", "job-1"]),
        "user": TEXT,
        "solver": TEXT,
        "ansys_edt_path": TEXT,
        "aedt_version": st.sampled_from(["", "2025.2"]),
        "design_name": TEXT,
        "design_mode": st.sampled_from(["", "Nominal"]),
        "setup_name": TEXT,
        "machine_nodes": st.sampled_from([[], NODES]),
        "distributed": st.none() | st.booleans(),
        "auto": st.none() | st.booleans(),
        "non_graphical": st.booleans(),
        "layout_options": st.sampled_from([{}, {"enable_gpu": False, "mpi_vendor": "50%"}, {"temp_directory": "/x"}]),
        "scheduler_type": st.sampled_from(["none", "local", "slurm"]),
        "scheduler_options": st.sampled_from([{}, {"queue": "fast", "extra": {"a": "1"}, "nodes": 2}]),
        "cores": st.integers(0, 9),
        "memory_mib": st.integers(0, 2**40),
        "licenses": st.sampled_from([{}, {"hfss": 2}]),
        "environment": st.dictionaries(st.sampled_from(["A", "B"]), TEXT),
        "wall_clock_limit": st.none() | st.sampled_from([1.5, 3600]),
        "cancel_grace": st.sampled_from([0, 30]),
        "retry": st.sampled_from([{}, {"max_attempts": 3, "reasons": ["license"]}]),
        "wait_for_license": st.booleans(),
        "existing_results": st.sampled_from(["keep", "clear"]),
        "not_before": st.none() | st.just(datetime(2031, 1, 2, tzinfo=timezone(timedelta(hours=2)))),
        "labels": st.dictionaries(st.sampled_from(["l1", "l2"]), TEXT),
        "batch": st.sampled_from(["", "b1"]),
        "batch_options": st.dictionaries(st.just("o"), TEXT),
    },
)


@given(CONFIGS)
def test_a_configuration_is_written_as_its_model_writes_it(values: dict[str, Any]) -> None:
    if not values.get("design_name"):
        values.pop("setup_name", None)  # a setup without its design is refused
    config = HFSSSimulationConfig.model_validate(values)
    message = to_job_config(config, str(config.scheduler_type)).to_message()
    written = json.loads(config_text(message, config.jobid, config.user, written_text()))
    accepted = accepted_config(message.SerializeToString())
    model = from_job_config(accepted, config.jobid, config.user).to_dict()
    written.pop("timestamp")
    model.pop("timestamp")
    assert written == model
    assert list(written) == list(model)


def test_a_large_kind_is_written_and_not_cached() -> None:
    large = job_config_pb2.JobConfig(project_path="/p.aedt")
    large.scheduler_options.exclude_nodes.append("n" * 4096)
    module._kept_kind.cache_clear()
    assert json.loads(config_text(large, "", "", written_text()))["scheduler_options"]["exclude"] == "n" * 4096
    assert module._kept_kind.cache_info().currsize == 0


def full_job() -> job_pb2.Job:
    config = job_config_pb2.JobConfig(project_path="/p/a.aedb/", batch="night", labels={"k": "v"})
    attempt = job_pb2.Attempt(
        number=2,
        reserve_time=Timestamp(seconds=1),
        start_time=Timestamp(seconds=2),
        nodes=["n1"],
        pid=7,
        outcome=job_pb2.Outcome(reason=job_state_pb2.END_REASON_SIGNAL, signal=9, message="m"),
        cpu_duration=Duration(seconds=1, nanos=500_000_000),
        peak_memory_bytes=10,
    )
    return job_pb2.Job(
        uid="u1",
        id='j"1',
        state=job_state_pb2.JOB_STATE_FAILED,
        priority=-3,
        user="ü",
        revision=12,
        create_time=Timestamp(seconds=1, nanos=500_000_000),
        start_time=Timestamp(seconds=2),
        end_time=Timestamp(seconds=3),
        held=True,
        outcome=job_pb2.Outcome(
            reason=job_state_pb2.END_REASON_SIGNAL,
            signal=9,
            evidence=job_state_pb2.EVIDENCE_EXIT_CODE,
            message="exited",
        ),
        attempt_count=2,
        attempts=[attempt],
        warnings=["w"],
        waiting=job_pb2.Waiting(reason=job_state_pb2.WAITING_REASON_CORES, message="d", jobs_before=4),
        scheduler="slurm",
        scheduler_job_id="77",
        aedt_version="2025.2",
        reservation=job_pb2.Reservation(cores=4, memory_bytes=(4 << 20) + 1),
        retry_of="u0",
        progress=convergence_pb2.JobProgress(setup="S", current_pass=3),
        config=config,
    )


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    _minute.cache_clear()
    yield
    monkeypatch.undo()
    _minute.cache_clear()
    time.tzset()


def test_every_member_of_a_job_is_written(utc: None) -> None:
    found = json.loads(job_text(full_job()))
    config = found.pop("config")
    assert (config["jobid"], config["user"], config["project_path"]) == ('j"1', "ü", "/p/a.aedb")
    (attempt,), progress = found.pop("attempts"), found.pop("progress")
    assert (attempt["number"], attempt["return_code"], attempt["reason"], attempt["end_time"]) == (
        2,
        -9,
        "signal",
        None,
    )
    assert (progress["setup"], progress["adaptive_pass"], progress["delta_s"]) == ("S", 3, None)
    assert found == {
        "id": 'j"1',
        "user": "ü",
        "status": "failed",
        "return_code": -9,
        "scheduler_job_id": "77",
        "priority": -3,
        "uid": "u1",
        "revision": 12,
        "attempt": 2,
        "start_time": "1970-01-01T00:00:02",
        "start_time_utc": "1970-01-01T00:00:02+00:00",
        "end_time": "1970-01-01T00:00:03",
        "end_time_utc": "1970-01-01T00:00:03+00:00",
        "create_time": "1970-01-01T00:00:01.500000",
        "create_time_utc": "1970-01-01T00:00:01.500000+00:00",
        "cancel_time": None,
        "cancel_time_utc": None,
        "not_before": None,
        "not_before_utc": None,
        "held": False,
        "waiting_reason": "cores",
        "waiting_detail": "d",
        "jobs_before": 4,
        "reason": "signal",
        "signal": 9,
        "evidence": "exit_code",
        "outcome_unknown": False,
        "message": "exited",
        "warnings": ["w"],
        "retry_of": "u0",
        "batch": "night",
        "labels": {"k": "v"},
        "executor": "slurm",
        "solver_version": "2025.2",
        "demo": False,
        "cores": 4,
        "memory_mib": 5,
    }


@given(st.floats(-1e6, 4e9) | st.floats(0, 1, exclude_max=True).map(lambda part: 1_700_000_000 + part))
def test_times_are_those_of_events(at: float) -> None:
    stamp = timestamp(at)
    found = json.loads(job_text(job_pb2.Job(create_time=stamp)))
    assert {name: value for name, value in found.items() if name.startswith("create")} == times(create_time=stamp)


@pytest.mark.parametrize("job", [job_pb2.Job(), full_job()], ids=["empty", "full"])
def test_the_members_and_their_types_are_those_of_the_model(job: job_pb2.Job) -> None:
    """The OpenAPI document is generated from the model, which does not write this text."""
    written = json.loads(job_text(job))
    found = Job.model_validate(written, extra="forbid").model_dump()
    assert found == written
    assert list(found) == list(written)
    for one, other in zip(found["attempts"], written["attempts"], strict=True):
        assert list(one) == list(other)
    if job.HasField("progress"):
        assert list(found["progress"]) == list(written["progress"])


def test_unset_members_are_null_or_empty() -> None:
    first, second = json.loads(f"[{jobs_text([job_pb2.Job(), full_job()])}]")
    assert list(first) == list(second)
    assert (first["status"], first["return_code"], first["labels"], first["attempts"]) == ("unknown", None, {}, [])
    assert first["create_time"] is first["progress"] is first["batch"] is first["reason"] is None
    exited = json.loads(job_text(job_pb2.Job(outcome=job_pb2.Outcome(exit_code=0))))
    assert (exited["return_code"], exited["signal"]) == (0, None)
