"""What a client can do with jobs, on a real service with the demo solver."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from edbjobs._calls import job_ref
from edbjobs.v1 import (
    errors_pb2,
    event_pb2,
    job_config_pb2,
    job_pb2,
    job_state_pb2,
    jobs_messages_pb2,
    jobs_service_pb2_grpc,
    resource_pb2,
    resources_service_pb2,
)
from edbjobs_server.contract.errors import item_status
from edbjobs_server.core.errors import Refused
from edbjobs_server.solver.demo.examples import example_project
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from support.service import ServiceProcess

MakeProject = Callable[[str], Path]
S = job_state_pb2
pb = jobs_messages_pb2


def config(project: Path, demo: str = "seconds=0.2", **values: Any) -> job_config_pb2.JobConfig:
    environment = {"ANS_EDBJOBS_DEMO": demo, **values.pop("environment", {})}
    return job_config_pb2.JobConfig(project_path=str(project), environment=environment, **values)


def submit(service: ServiceProcess, project: Path, demo: str = "seconds=0.2", **values: Any) -> job_pb2.Job:
    request_values = {
        name: values.pop(name) for name in ("job_id", "request_id", "priority", "hold", "user") if name in values
    }
    request = pb.SubmitJobRequest(config=config(project, demo, **values), **request_values)
    return service.jobs.SubmitJob(request, timeout=10).job


def wait(service: ServiceProcess, job: job_pb2.Job, timeout: int = 30) -> job_pb2.Job:
    answer = service.jobs.WaitJob(
        pb.WaitJobRequest(job=job_ref(job.uid), timeout=Duration(seconds=timeout)), timeout=timeout + 5
    )
    assert answer.job.HasField("end_time"), answer.job
    return answer.job


def wait_for(service: ServiceProcess, job: job_pb2.Job, wanted: Callable[[job_pb2.Job], bool]) -> job_pb2.Job:
    """Wait for a change of a job, by watching."""
    now = get(service, job)
    if wanted(now):
        return now
    after = event_pb2.Position(revision=now.revision)
    request = pb.WatchJobsRequest(after=after, filter=pb.JobFilter(jobs=[job_ref(job.uid)]))
    for message in service.jobs.WatchJobs(request, timeout=30):
        for event in message.events:
            if wanted(event.job_change.job):
                return event.job_change.job
    raise AssertionError("the watch ended")


def get(service: ServiceProcess, job: job_pb2.Job) -> job_pb2.Job:
    return service.jobs.GetJob(pb.GetJobRequest(job=job_ref(job.uid)), timeout=10).job


def reason_of(error: grpc.RpcError) -> str:
    """The reason an error carries for programs."""
    return str(info_of(error).reason)


def info_of(error: grpc.RpcError) -> error_details_pb2.ErrorInfo:
    assert isinstance(error, grpc.Call)
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return info
    raise AssertionError(f"no ErrorInfo: {error}")


def refused(call: Callable[[], object]) -> tuple[str, str]:
    """Make a call that must be refused; gives its code and reason."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert isinstance(caught.value, grpc.Call)
    return caught.value.code().name, reason_of(caught.value)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Submitting -----------------------------------------------------------------------------------------------


def test_a_solve_is_proven_by_its_log(service: ServiceProcess, make_project: MakeProject) -> None:
    job = wait(service, submit(service, make_project("p"), labels={"part": "antenna"}, batch="b1"))
    assert job.state == S.JOB_STATE_COMPLETED
    assert job.outcome.evidence == S.EVIDENCE_SOLVER_LOG
    assert job.demo
    assert "normal completion" in job.outcome.message
    assert job.attempts[0].nodes
    listed = service.jobs.ListJobs(
        pb.ListJobsRequest(filter=pb.JobFilter(batches=["b1"], labels={"part": "antenna"}))
    ).jobs
    assert [found.uid for found in listed] == [job.uid]


def test_the_same_request_is_the_same_job(service: ServiceProcess, make_project: MakeProject) -> None:
    project = make_project("p")
    first = submit(service, project, request_id="once", job_id="one")
    again = service.jobs.SubmitJob(pb.SubmitJobRequest(request_id="once", job_id="one", config=config(project)))
    assert again.existed
    assert again.job.uid == first.uid
    wait(service, first)
    other = lambda: submit(service, project, "seconds=9", request_id="once", job_id="one")  # noqa: E731
    assert refused(other) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    project.unlink()
    repeated = service.jobs.SubmitJob(pb.SubmitJobRequest(request_id="once", job_id="one", config=config(project)))
    assert repeated.job.uid == first.uid, "a repetition is answered though the project is gone by now"


def test_a_live_id_is_taken_and_an_ended_one_is_free(service: ServiceProcess, make_project: MakeProject) -> None:
    project = make_project("p")
    first = submit(service, project, job_id="mine", hold=True)
    same = service.jobs.SubmitJob(pb.SubmitJobRequest(job_id="mine", hold=True, config=config(project)))
    assert same.existed
    assert same.job.uid == first.uid
    assert refused(lambda: submit(service, project, "seconds=5", job_id="mine")) == ("ALREADY_EXISTS", "JOB_EXISTS")
    service.jobs.ReleaseJob(pb.ReleaseJobRequest(job=job_ref("mine")))
    wait(service, first)
    second = submit(service, project, job_id="mine")
    assert second.uid != first.uid
    assert service.jobs.GetJob(pb.GetJobRequest(job=job_ref("mine"))).job.uid == second.uid
    assert get(service, first).uid == first.uid
    wait(service, second)


def test_a_bad_item_stops_no_other(service: ServiceProcess, make_project: MakeProject, tmp_path: Path) -> None:
    good = config(make_project("p"))
    requests = [
        pb.SubmitJobRequest(config=good),
        pb.SubmitJobRequest(config=job_config_pb2.JobConfig(project_path=str(tmp_path / "missing.aedt"))),
        pb.SubmitJobRequest(job_id="bad id!", config=good),
    ]
    results = service.jobs.SubmitJobs(pb.SubmitJobsRequest(requests=requests)).results
    assert [result.WhichOneof("result") for result in results] == ["response", "error", "error"]
    assert "missing.aedt" in results[1].error.message
    assert "job_id" in results[2].error.message
    E = errors_pb2.ErrorReason
    assert [result.error_reason for result in results] == [
        E.ERROR_REASON_UNSPECIFIED,
        E.ERROR_REASON_PROJECT_NOT_FOUND,
        E.ERROR_REASON_INVALID_REQUEST,
    ]
    job = results[0].response.job
    assert (job.view, job.HasField("config"), job.project_path) == (
        job_pb2.JOB_VIEW_BASIC,
        False,
        str(good.project_path),
    )
    wait(service, job)


def test_a_thousand_errors_fit_in_a_message_that_every_client_takes(service: ServiceProcess, tmp_path: Path) -> None:
    wrong = job_config_pb2.JobConfig(project_path=str(tmp_path / "x"), cores=-1)
    for number in range(100):
        wrong.licenses[f"{number}-" + "x" * 60] = -1
    requests = [pb.SubmitJobRequest(config=wrong, user="x" * 300)] * 1000
    with grpc.insecure_channel(service.target) as channel:  # of gRPC's defaults
        jobs = jobs_service_pb2_grpc.JobsServiceStub(channel)
        results = jobs.SubmitJobs(pb.SubmitJobsRequest(requests=requests[:300]), timeout=60).results
        assert {result.error_reason for result in results} == {errors_pb2.ERROR_REASON_INVALID_JOB}
    room = 4096
    long = Refused("INVALID_JOB", "x" * 50_000, fields={str(number): "y" * 500 for number in range(100)})
    assert 0 < item_status(long, room).ByteSize() <= room


def test_a_wait_without_a_timeout_and_one_of_no_time(service: ServiceProcess, make_project: MakeProject) -> None:
    job = submit(service, make_project("p"), hold=True)
    for timeout in (Duration(), Duration(nanos=1)):
        answer = service.jobs.WaitJob(pb.WaitJobRequest(job=job_ref(job.uid), timeout=timeout), timeout=10)
        assert (answer.job.uid, answer.job.HasField("end_time")) == (job.uid, False)
    negative = pb.WaitJobRequest(job=job_ref(job.uid), timeout=Duration(seconds=-1))
    assert refused(lambda: service.jobs.WaitJob(negative)) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    with pytest.raises(grpc.RpcError) as caught:  # the default is longer than this
        service.jobs.WaitJob(pb.WaitJobRequest(job=job_ref(job.uid)), timeout=1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    service.jobs.CancelJob(pb.CancelJobRequest(job=job_ref(job.uid)))


def test_views_of_a_job(service: ServiceProcess, make_project: MakeProject) -> None:
    job = wait(service, submit(service, make_project("p"), labels={"k": "v"}))
    assert (job.view, len(job.attempts)) == (job_pb2.JOB_VIEW_FULL, 1)
    request = pb.GetJobRequest(job=job_ref(job.uid), view=job_pb2.JOB_VIEW_BASIC)
    basic = service.jobs.GetJob(request).job
    assert (basic.view, len(basic.attempts), dict(basic.config.labels)) == (job_pb2.JOB_VIEW_BASIC, 0, {"k": "v"})
    assert not basic.config.environment
    assert job.config.environment


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"project_path": "relative.aedt"}, "INVALID_JOB"),
        ({"project_path": "C:\\projects\\a.aedt"}, "INVALID_JOB"),
        ({"design": "a\nb"}, "INVALID_JOB"),
        ({"environment": {"LD_PRELOAD": "/tmp/x.so"}}, "ENVIRONMENT_NOT_ALLOWED"),
        ({"aedt_path": "/bin/sh"}, "SOLVER_NOT_ALLOWED"),
        ({"scheduler": "slurm"}, "NO_SCHEDULER"),
        ({"cores": 99}, "INFEASIBLE"),
        ({"cancel_grace_period": {"seconds": 7200}}, "INVALID_JOB"),
    ],
)
def test_what_cannot_be_run_is_refused_at_once(
    service: ServiceProcess, make_project: MakeProject, change: dict[str, Any], reason: str
) -> None:
    message = config(make_project("p"))
    for name, value in change.items():
        message.MergeFrom(job_config_pb2.JobConfig(**{name: value}))
    before = service.jobs.ListJobs(pb.ListJobsRequest()).total_size
    assert refused(lambda: service.jobs.SubmitJob(pb.SubmitJobRequest(config=message)))[1] == reason
    assert service.jobs.ListJobs(pb.ListJobsRequest()).total_size == before


def test_preview_runs_and_records_nothing(service: ServiceProcess, make_project: MakeProject) -> None:
    project = make_project("p")
    before = service.jobs.ListJobs(pb.ListJobsRequest()).total_size
    request = pb.SubmitJobRequest(job_id="seen", config=config(project, setup="Setup1", design="Patch"))
    preview = service.jobs.PreviewJob(pb.PreviewJobRequest(request=request))
    assert preview.argv[-1] == str(project)
    assert preview.argv[-2] == "Patch:Nominal:Setup1"
    assert "-batchsolve" in preview.command_line
    assert preview.environment["ANS_EDBJOBS_DEMO"]
    assert service.jobs.ListJobs(pb.ListJobsRequest()).total_size == before
    assert not project.with_suffix(".aedt.lock").exists()


# Ending ---------------------------------------------------------------------------------------------------


def test_cancel_of_a_waiting_job(service: ServiceProcess, make_project: MakeProject) -> None:
    job = submit(service, make_project("p"), hold=True)
    assert job.waiting.reason == S.WAITING_REASON_HELD
    ended = service.jobs.CancelJob(pb.CancelJobRequest(job=job_ref(job.uid))).job
    assert ended.state == S.JOB_STATE_CANCELLED
    assert not ended.attempts
    again = service.jobs.CancelJob(pb.CancelJobRequest(job=job_ref(job.uid))).job
    assert (again.state, again.revision) == (ended.state, ended.revision), "answered as it is"


@pytest.mark.parametrize(
    "demo", ["seconds=60", "seconds=60,term=ignore,children=stubborn", "seconds=60,children=daemon"]
)
def test_cancel_of_a_running_job_leaves_no_process(
    service: ServiceProcess, make_project: MakeProject, tmp_path: Path, demo: str
) -> None:
    witness = tmp_path / "w"
    witness.mkdir()
    environment = {"ANS_EDBJOBS_DEMO_WITNESS": str(witness)}
    job = submit(service, make_project("p"), demo, environment=environment, cancel_grace_period={"seconds": 1})
    job = wait_for(service, job, lambda found: found.state == S.JOB_STATE_RUNNING)
    deadline = time.monotonic() + 20
    while not any(witness.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    cancelling = service.jobs.CancelJob(pb.CancelJobRequest(job=job_ref(job.uid))).job
    assert cancelling.HasField("cancel_request_time")
    assert cancelling.state == S.JOB_STATE_RUNNING, "cancel answers at once"
    ended = wait(service, job)
    assert ended.state == S.JOB_STATE_CANCELLED
    assert ended.outcome.reason == S.END_REASON_CANCELLED
    assert not processes_of(job.uid)


def processes_of(uid: str) -> list[int]:
    """Live processes that carry the mark of a run of this job."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
            except (OSError, PermissionError):
                continue
            if f"EDBJOBS_RUN={uid}.".encode() in environment and alive(int(entry.name)):
                found.append(int(entry.name))
    return found


def test_cancel_while_starting_never_leaves_a_run(service: ServiceProcess, make_project: MakeProject) -> None:
    jobs = [submit(service, make_project(f"p{number}"), "seconds=30", cancel_grace_period={}) for number in range(6)]
    for job in jobs:
        service.jobs.CancelJob(pb.CancelJobRequest(job=job_ref(job.uid)))
    for job in jobs:
        assert wait(service, job).state == S.JOB_STATE_CANCELLED
        assert not processes_of(job.uid)


def test_time_limit(service: ServiceProcess, make_project: MakeProject) -> None:
    job = submit(
        service, make_project("p"), "seconds=60", time_limit={"seconds": 1}, cancel_grace_period={"seconds": 1}
    )
    ended = wait(service, job)
    assert (ended.state, ended.outcome.reason) == (S.JOB_STATE_FAILED, S.END_REASON_TIMEOUT)
    assert not processes_of(job.uid)


@pytest.mark.parametrize(
    ("demo", "reason"),
    [
        ("seconds=0.1,fail=license", S.END_REASON_LICENSE),
        ("seconds=0.1,fail=engine", S.END_REASON_SOLVER_ERROR),
        ("seconds=0.1,fail=mpi", S.END_REASON_SOLVER_ERROR),
        ("seconds=0.1,fail=cut", S.END_REASON_UNVERIFIED),
        ("seconds=0.1,fail=nothing", S.END_REASON_NOTHING_SOLVED),
        ("seconds=0.1,fail=exit", S.END_REASON_EXIT_CODE),
    ],
)
def test_failures_say_why(service: ServiceProcess, make_project: MakeProject, demo: str, reason: int) -> None:
    ended = wait(service, submit(service, make_project("p"), demo))
    assert ended.state == S.JOB_STATE_FAILED
    assert ended.outcome.reason == reason, ended.outcome.message
    assert ended.outcome.message


def test_exit_code_zero_without_a_log_is_told_as_such(service: ServiceProcess, make_project: MakeProject) -> None:
    ended = wait(service, submit(service, make_project("p"), "seconds=0.1,fail=nolog"))
    assert (ended.state, ended.outcome.evidence) == (S.JOB_STATE_COMPLETED, S.EVIDENCE_EXIT_CODE)


def test_the_wait_for_a_license_has_its_limit(service: ServiceProcess, make_project: MakeProject) -> None:
    job = submit(
        service,
        make_project("p"),
        "seconds=0.1,fail=license",
        wait_for_license=True,
        license_wait_limit={"seconds": 2},
        cancel_grace_period={"seconds": 1},
        retry={"max_attempts": 1},
    )
    deadline = time.monotonic() + 10
    while get(service, job).waiting.reason != S.WAITING_REASON_LICENSE_WAIT:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ended = wait(service, job)
    assert (ended.state, ended.outcome.reason) == (S.JOB_STATE_FAILED, S.END_REASON_LICENSE), ended.outcome.message


def test_progress_is_told_while_it_runs(service: ServiceProcess, make_project: MakeProject) -> None:
    job = submit(service, make_project("p"), "seconds=4")
    passes: list[int] = []
    fractions: list[float] = []
    while not (
        answer := service.jobs.WaitJob(pb.WaitJobRequest(job=job_ref(job.uid), timeout=Duration(nanos=300_000_000)))
    ).job.HasField("end_time"):
        passes.append(max(answer.job.progress.current_pass, answer.job.progress.last_pass.number))
        if answer.job.progress.HasField("fraction"):
            fractions.append(answer.job.progress.fraction)
    assert passes == sorted(passes)
    assert len(set(passes)) >= 2
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] < 1


def test_retries_are_new_attempts(service: ServiceProcess, make_project: MakeProject) -> None:
    retry = {"max_attempts": 3, "reasons": [S.END_REASON_LICENSE], "initial_delay": {"nanos": 100_000_000}}
    ended = wait(service, submit(service, make_project("p"), "seconds=0.1,fail=license", retry=retry))
    assert ended.state == S.JOB_STATE_FAILED
    assert [attempt.number for attempt in ended.attempts] == [1, 2, 3]
    assert {attempt.outcome.reason for attempt in ended.attempts} == {S.END_REASON_LICENSE}


def test_retry_makes_a_new_job_of_the_same_id(service: ServiceProcess, make_project: MakeProject) -> None:
    first = wait(service, submit(service, make_project("p"), "seconds=0.1,fail=exit", job_id="again"))
    second = service.jobs.RetryJob(pb.RetryJobRequest(job=job_ref("again"), request_id="retry-1")).job
    assert second.retry_of == first.uid
    assert second.id == "again"
    for name in (first.uid, "again"):
        repeated = service.jobs.RetryJob(pb.RetryJobRequest(job=job_ref(name), request_id="retry-1"))
        assert (repeated.job.uid, repeated.existed) == (second.uid, True)
    old = service.jobs.GetJob(pb.GetJobRequest(job=job_ref(first.uid))).job
    assert (old.superseded_by, old.state) == (second.uid, first.state)
    wait(service, second)


def test_delete_removes_record_and_run_folder_only(service: ServiceProcess, make_project: MakeProject) -> None:
    project = make_project("p")
    job = wait(service, submit(service, project))
    assert Path(job.attempts[-1].run_directory).is_dir()
    beside = set(project.parent.iterdir())
    service.jobs.DeleteJob(pb.DeleteJobRequest(job=job_ref(job.uid)))
    assert refused(lambda: get(service, job)) == ("NOT_FOUND", "JOB_NOT_FOUND")
    assert not Path(job.attempts[-1].run_directory).exists()
    assert set(project.parent.iterdir()) == beside


# Projects -------------------------------------------------------------------------------------------------


def test_two_runs_never_share_a_project(service: ServiceProcess, make_project: MakeProject) -> None:
    project = make_project("p")
    first = submit(service, project, "seconds=0.6")
    second = submit(service, project, "seconds=0.1")
    waiting = wait_for(service, first, lambda job: job.state == S.JOB_STATE_RUNNING)
    found = get(service, second)
    assert found.waiting.reason == S.WAITING_REASON_PROJECT_BUSY
    assert waiting.id in found.waiting.message
    one, two = wait(service, first), wait(service, second)
    assert two.attempts[0].reserve_time.ToNanoseconds() >= one.end_time.ToNanoseconds()


def test_a_foreign_lock_is_waited_for(service: ServiceProcess, make_project: MakeProject) -> None:
    project = make_project("p")
    lock = project.with_name(project.name + ".lock")
    lock.write_text("somebody")
    job = submit(service, project)
    deadline = time.monotonic() + 10
    while get(service, job).waiting.reason != S.WAITING_REASON_PROJECT_LOCKED:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert str(lock) in get(service, job).waiting.message
    lock.unlink()
    assert wait(service, job).state == S.JOB_STATE_COMPLETED


def test_the_lock_of_our_killed_run_is_removed(service: ServiceProcess, make_project: MakeProject) -> None:
    project = make_project("p")
    lock = project.with_name(project.name + ".lock")
    job = submit(service, project, "seconds=60,term=ignore", cancel_grace_period={})
    wait_for(service, job, lambda found: found.state == S.JOB_STATE_RUNNING)
    deadline = time.monotonic() + 10
    while not lock.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    service.jobs.CancelJob(pb.CancelJobRequest(job=job_ref(job.uid)))
    wait(service, job)
    assert not lock.exists()
    events = [
        event
        for message in take_until_caught_up(
            service, pb.WatchJobsRequest(from_oldest=True, filter=pb.JobFilter(jobs=[job_ref(job.uid)]))
        )
        for event in message.events
    ]
    assert any(str(lock) in event.message for event in events)


def test_existing_results(service: ServiceProcess, make_project: MakeProject) -> None:
    project = make_project("p")
    wait(service, submit(service, project))
    results = project.with_name(project.name + "results")
    assert results.is_dir()
    kept = results / "mark"
    kept.write_text("x")
    refuse = wait(service, submit(service, project, existing_results=job_config_pb2.EXISTING_RESULTS_REFUSE))
    assert (refuse.state, refuse.outcome.reason) == (S.JOB_STATE_FAILED, S.END_REASON_RESULTS_EXIST)
    assert kept.exists()
    assert wait(service, submit(service, project)).state == S.JOB_STATE_COMPLETED
    assert kept.exists()
    clear = wait(service, submit(service, project, existing_results=job_config_pb2.EXISTING_RESULTS_CLEAR))
    assert clear.state == S.JOB_STATE_COMPLETED
    assert not kept.exists()


# Queue and limits -----------------------------------------------------------------------------------------


def test_hold_release_priority(service: ServiceProcess, make_project: MakeProject) -> None:
    job = submit(service, make_project("p"), hold=True)
    changed = service.jobs.SetJobPriority(pb.SetJobPriorityRequest(job=job_ref(job.uid), priority=7)).job
    assert changed.priority == 7
    released = service.jobs.ReleaseJob(pb.ReleaseJobRequest(job=job_ref(job.uid))).job
    assert not released.held
    ended = wait(service, job)
    for call in (
        lambda: service.jobs.SetJobPriority(pb.SetJobPriorityRequest(job=job_ref(job.uid), priority=9)),
        lambda: service.jobs.HoldJob(pb.HoldJobRequest(job=job_ref(job.uid))),
    ):
        assert refused(call) == ("FAILED_PRECONDITION", "JOB_ENDED")
    assert get(service, job).revision == ended.revision, "nothing was run or changed"


def test_limits_are_applied_whole_or_not_at_all(service: ServiceProcess) -> None:
    before = service.resources.GetLimits(resources_service_pb2.GetLimitsRequest()).limits
    wrong = resource_pb2.Limits(max_local_jobs=3, min_free_disk_bytes=-1)
    request = resources_service_pb2.UpdateLimitsRequest(limits=wrong)
    assert refused(lambda: service.resources.UpdateLimits(request)) == ("INVALID_ARGUMENT", "INVALID_LIMITS")
    assert service.resources.GetLimits(resources_service_pb2.GetLimitsRequest()).limits == before
    right = resources_service_pb2.UpdateLimitsRequest(limits=resource_pb2.Limits(max_local_jobs=7))
    answer = service.resources.UpdateLimits(right)
    assert (answer.old_limits.max_local_jobs, answer.limits.max_local_jobs) == (8, 7)
    service.resources.UpdateLimits(
        resources_service_pb2.UpdateLimitsRequest(limits=resource_pb2.Limits(max_local_jobs=8))
    )


def test_a_paused_queue_starts_nothing(service: ServiceProcess, make_project: MakeProject) -> None:
    assert service.resources.PauseQueue(resources_service_pb2.PauseQueueRequest()).queue.paused
    try:
        job = submit(service, make_project("p"))
        assert get(service, job).waiting.reason == S.WAITING_REASON_QUEUE_PAUSED
    finally:
        service.resources.ResumeQueue(resources_service_pb2.ResumeQueueRequest())
    assert wait(service, job).state == S.JOB_STATE_COMPLETED


def test_a_lower_limit_ends_nothing_and_a_waiting_job_says_why(
    service: ServiceProcess, make_project: MakeProject
) -> None:
    first = submit(service, make_project("a"), "seconds=1")
    wait_for(service, first, lambda job: job.state == S.JOB_STATE_RUNNING)
    service.resources.UpdateLimits(
        resources_service_pb2.UpdateLimitsRequest(limits=resource_pb2.Limits(max_local_jobs=0))
    )
    try:
        second, third = submit(service, make_project("b"), priority=1), submit(service, make_project("c"))
        found = get(service, second)
        assert found.waiting.reason == S.WAITING_REASON_JOB_LIMIT
        behind = get(service, third)
        assert behind.waiting.reason == S.WAITING_REASON_JOBS_BEFORE
        assert behind.waiting.jobs_before == 1
        assert second.id in behind.waiting.message
        assert wait(service, first).state == S.JOB_STATE_COMPLETED
    finally:
        service.resources.UpdateLimits(
            resources_service_pb2.UpdateLimitsRequest(limits=resource_pb2.Limits(max_local_jobs=8))
        )
    for job in (second, third):
        wait(service, job)


def test_cancel_many_by_filter(service: ServiceProcess, make_project: MakeProject) -> None:
    jobs = [submit(service, make_project(f"p{n}"), hold=True, batch="many" if n else "other") for n in range(4)]
    assert refused(lambda: service.jobs.CancelJobs(pb.CancelJobsRequest())) == ("INVALID_ARGUMENT", "FILTER_REQUIRED")
    answer = service.jobs.CancelJobs(pb.CancelJobsRequest(filter=pb.JobFilter(batches=["many"])))
    assert [result.job.uid for result in answer.results] == [job.uid for job in jobs[1:]], "the oldest first"
    assert all(result.changed.state == S.JOB_STATE_CANCELLED for result in answer.results)
    assert not answer.more
    assert get(service, jobs[0]).state == S.JOB_STATE_QUEUED
    service.jobs.CancelJob(pb.CancelJobRequest(job=job_ref(jobs[0].uid)))


# Watching, logs -------------------------------------------------------------------------------------------


def take_until_caught_up(service: ServiceProcess, request: pb.WatchJobsRequest) -> list[pb.WatchJobsResponse]:
    messages = []
    for message in service.jobs.WatchJobs(request, timeout=30):
        messages.append(message)
        if message.caught_up:
            return messages
    raise AssertionError("never caught up")


def test_watch_refuses_another_store_and_the_future(service: ServiceProcess) -> None:
    for request, reason in (
        (pb.WatchJobsRequest(after=event_pb2.Position(revision=1, store_id="other")), "OTHER_STORE"),
        (pb.WatchJobsRequest(after=event_pb2.Position(revision=10**9)), "REVISION_IN_FUTURE"),
    ):
        assert refused(lambda request=request: next(service.jobs.WatchJobs(request, timeout=10))) == (  # type: ignore[misc]
            "OUT_OF_RANGE",
            reason,
        )


def test_list_then_watch_misses_nothing(service: ServiceProcess, make_project: MakeProject) -> None:
    page = service.jobs.ListJobs(pb.ListJobsRequest(page_size=1))
    job = wait(service, submit(service, make_project("p")))
    request = pb.WatchJobsRequest(after=page.position)
    events = [event for message in take_until_caught_up(service, request) for event in message.events]
    jobs = [event.job_change.job for event in events]
    states = [found.state for found in jobs if found.uid == job.uid]
    assert states == [S.JOB_STATE_QUEUED, S.JOB_STATE_QUEUED, S.JOB_STATE_RUNNING, S.JOB_STATE_COMPLETED]


def test_a_log_is_followed_to_its_end(service: ServiceProcess, make_project: MakeProject) -> None:
    job = submit(service, make_project("p"), "seconds=1")
    pieces: list[pb.ReadLogResponse] = []

    def follow() -> None:
        request = pb.ReadLogRequest(job=job_ref(job.uid), stream=pb.LOG_STREAM_SOLVER, follow=True)
        pieces.extend(service.jobs.ReadLog(request, timeout=30))

    thread = threading.Thread(target=follow)
    thread.start()
    thread.join(30)
    assert pieces[-1].eof
    text = b"".join(piece.data for piece in pieces)
    assert b"Stopping Batch Run" in text
    offsets = [piece.offset for piece in pieces if piece.data]
    assert offsets[0] == 0
    assert offsets == sorted(set(offsets))
    last = list(service.jobs.ReadLog(pb.ReadLogRequest(job=job_ref(job.uid), stream=pb.LOG_STREAM_SOLVER, offset=-20)))
    assert last[0].data == text[-20:]


def test_log_errors(service: ServiceProcess, make_project: MakeProject) -> None:
    job = wait(service, submit(service, make_project("p")))

    def tail(**values: Any) -> Callable[[], object]:
        return lambda: list(service.jobs.ReadLog(pb.ReadLogRequest(job=job_ref(job.uid), **values), timeout=10))

    assert refused(tail(attempt=5)) == ("NOT_FOUND", "ATTEMPT_NOT_FOUND")
    assert refused(tail(stream=pb.LOG_STREAM_SCRIPT)) == ("NOT_FOUND", "LOG_NOT_FOUND")
    assert refused(tail(stream=77)) == ("UNIMPLEMENTED", "NOT_SERVED")
    assert refused(tail(offset=10**9)) == ("OUT_OF_RANGE", "OFFSET_BEYOND_END")


def test_pages_follow_each_other(service: ServiceProcess) -> None:
    seen: list[str] = []
    token = ""
    while True:
        page = service.jobs.ListJobs(
            pb.ListJobsRequest(page_size=3, page_token=token, order=pb.JOB_ORDER_CREATE_TIME_DESCENDING)
        )
        seen += [job.uid for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert len(seen) == len(set(seen)) == page.total_size
    assert refused(lambda: service.jobs.ListJobs(pb.ListJobsRequest(page_token="x"))) == (
        "INVALID_ARGUMENT",
        "INVALID_PAGE_TOKEN",
    )


def test_real_board(service: ServiceProcess, tmp_path: Path) -> None:
    """A job on a real .aedb goes through with the demo solver."""
    samples = Path(__file__).resolve().parents[3] / "shared" / "samples" / "aedb"
    source = samples / "test_project_for_job_manager.aedb"
    if not source.is_dir():
        pytest.skip("the samples do not stand beside the checkout")
    board = tmp_path / source.name
    board.mkdir()
    for file in source.iterdir():
        (board / file.name).write_bytes(file.read_bytes())
    os.chmod(board, 0o755)
    ended = wait(service, submit(service, board))
    assert ended.state == S.JOB_STATE_COMPLETED, ended.outcome.message
    assert "HFSS_Solution" in ended.outcome.message


def test_results_have_the_usual_mode_and_the_services_own_files_are_private(tmp_path: Path) -> None:
    project = example_project(tmp_path / "p")
    before = os.umask(0o027)
    try:
        running = ServiceProcess(tmp_path)
        running.start()
    finally:
        os.umask(before)
    try:
        config = job_config_pb2.JobConfig(project_path=str(project))
        job = running.jobs.SubmitJob(jobs_messages_pb2.SubmitJobRequest(config=config)).job
        ended = running.jobs.WaitJob(jobs_messages_pb2.WaitJobRequest(job=job_ref(job.uid))).job
    finally:
        running.stop()
    results = [path for path in project.parent.rglob("*") if path.is_file() and path != project]
    assert results
    assert {oct(path.stat().st_mode & 0o777) for path in results} <= {"0o640", "0o750"}
    assert (Path(ended.attempts[-1].run_directory) / "stdout").stat().st_mode & 0o077 == 0
