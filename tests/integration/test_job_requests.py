"""What the contract promises of requests about jobs: naming, repeating, filters, cancelling, retrying, deleting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
from edbjobs.v1 import errors_pb2, event_pb2, job_config_pb2, job_pb2
from edbjobs.v1.job_ref_pb2 import JobRef
from edbjobs_server.contract.errors import to_status
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.principal import Principal, Role
from edbjobs_server.manager import cancellation, selection
from edbjobs_server.manager.job_commands import Accepted
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import ErrorInfo
from support.manager_world import ANN, S, World, pb, world

BOB = Principal("bob", Role.USER)
ADMIN = Principal("root", Role.ADMIN)
UID = "0123456789abcdef" * 2


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as opened:
        yield opened


def ref(name: str) -> JobRef:
    return JobRef(uid=name) if len(name) == 32 else JobRef(id=name)


async def refusal(call: Awaitable[object]) -> tuple[str, dict[str, str]]:
    with pytest.raises(Refused) as refused:
        await call
    return refused.value.reason, refused.value.metadata


def request(it: World, name: str, *, project: str = "", hold: bool = True, **values: Any) -> pb.SubmitJobRequest:
    config = values.pop("config", {})
    path = str(it.project(project or name or "some"))
    return pb.SubmitJobRequest(
        job_id=name, config=job_config_pb2.JobConfig(project_path=path, **config), hold=hold, **values
    )


async def submit(it: World, name: str, principal: Principal = ANN, **values: Any) -> Accepted:
    return await it.manager.submit(request(it, name, **values), principal)


async def cancelled(it: World, name: str, **values: Any) -> job_pb2.Job:
    uid = (await submit(it, name, **values)).job.uid
    return await it.manager.cancel(JobRef(uid=uid), ADMIN, None)


async def retried(it: World, name: str, principal: Principal = ANN, **values: Any) -> Accepted:
    return await it.manager.retry(pb.RetryJobRequest(job=ref(name), **values), principal)


async def listed(it: World, **values: Any) -> list[str]:
    page = await it.manager.list_jobs(pb.ListJobsRequest(filter=pb.JobFilter(**values), page_size=1000))
    return [job.id for job in page.jobs]


# Naming ---------------------------------------------------------------------------------------------------


async def test_a_job_is_named_by_exactly_one_of_uid_and_id(it: World) -> None:
    for wrong in (JobRef(), JobRef(uid=UID, id="x")):
        with pytest.raises(Refused) as refused:
            await it.manager.get(wrong)
        assert (refused.value.reason, [*refused.value.fields]) == ("INVALID_REQUEST", ["job"])
    with pytest.raises(Refused) as refused:
        await it.manager.list_jobs(pb.ListJobsRequest(filter=pb.JobFilter(jobs=[JobRef(id="x"), JobRef()])))
    assert [*refused.value.fields] == ["filter.jobs[1]"]


async def test_an_id_is_the_newest_job_and_a_uid_that_job(it: World) -> None:
    first = await cancelled(it, "x")
    second = (await submit(it, "x")).job
    assert (await it.manager.get(JobRef(id="x"))).uid == second.uid
    assert (await it.manager.get(JobRef(uid=first.uid))).uid == first.uid
    assert await refusal(it.manager.get(JobRef(id=first.uid))) == ("JOB_NOT_FOUND", {})
    assert await refusal(it.manager.get(JobRef(uid="x"))) == ("JOB_NOT_FOUND", {})


@pytest.mark.parametrize("name", [UID, UID.upper()])
async def test_an_id_of_the_form_of_a_uid_is_refused(it: World, name: str) -> None:
    with pytest.raises(Refused) as refused:
        await submit(it, name)
    assert (refused.value.reason, [*refused.value.fields]) == ("INVALID_REQUEST", ["job_id"])
    assert (await submit(it, name[1:])).job.id == name[1:]


async def test_a_name_of_the_documented_api_is_a_uid_or_else_an_id(it: World) -> None:
    job = (await submit(it, "x")).job
    assert await it.manager.ref_of(job.uid) == JobRef(uid=job.uid)
    assert await it.manager.ref_of(UID) == JobRef(id=UID)
    assert await it.manager.ref_of("x") == JobRef(id="x")


async def test_how_much_of_a_job_is_sent(it: World) -> None:
    config = {"labels": {"k": "v"}, "batch": "b", "cores": 2}
    accepted = await submit(it, "x", config=config)
    assert (accepted.job.view, accepted.job.config.cores) == (job_pb2.JOB_VIEW_FULL, 2)
    basic = await it.manager.get(JobRef(id="x"), job_pb2.JOB_VIEW_BASIC)
    assert (basic.view, basic.config.cores, basic.config.batch) == (job_pb2.JOB_VIEW_BASIC, 0, "b")
    assert (await it.manager.get(JobRef(id="x"))).view == job_pb2.JOB_VIEW_FULL
    (job,) = (await it.manager.list_jobs(pb.ListJobsRequest())).jobs
    assert (job.view, dict(job.config.labels)) == (job_pb2.JOB_VIEW_BASIC, {"k": "v"})
    (job,) = (await it.manager.list_jobs(pb.ListJobsRequest(view=job_pb2.JOB_VIEW_FULL))).jobs
    assert (job.view, job.config.cores) == (job_pb2.JOB_VIEW_FULL, 2)


# Repeating ------------------------------------------------------------------------------------------------


async def test_a_repeated_request_id_is_answered_with_its_job_also_after_a_restart(it: World) -> None:
    first = await submit(it, "x", request_id="r")
    again = await submit(it, "x", request_id="r")
    assert (again.existed, again.job.uid) == (True, first.job.uid)
    await it.close()
    await it.open()
    assert (await submit(it, "x", request_id="r")).job.uid == first.job.uid
    assert await refusal(submit(it, "x", request_id="r", priority=1)) == ("REQUEST_ID_REUSED", {"uid": first.job.uid})
    assert (await refusal(submit(it, "other", project="x", request_id="r")))[0] == "REQUEST_ID_REUSED"


async def test_each_caller_has_request_ids_of_its_own(it: World) -> None:
    one = await submit(it, "x", request_id="r")
    other = await submit(it, "y", BOB, request_id="r")
    assert one.job.uid != other.job.uid
    assert not other.existed


async def test_request_ids_are_one_namespace_over_all_calls(it: World) -> None:
    await cancelled(it, "x", request_id="r")
    assert (await refusal(retried(it, "x", request_id="r")))[0] == "REQUEST_ID_REUSED"
    new = (await retried(it, "x", request_id="q")).job
    assert await refusal(submit(it, "x", request_id="q")) == ("REQUEST_ID_REUSED", {"uid": new.uid})
    (many,) = await it.manager.submit_many([request(it, "x", request_id="q")], ANN)
    assert isinstance(many, Refused)
    assert many.reason == "REQUEST_ID_REUSED"


async def test_a_refused_request_is_not_remembered(it: World) -> None:
    wrong = request(it, "x", request_id="r")
    wrong.config.project_path = str(it.folder / "none.aedt")
    assert (await refusal(it.manager.submit(wrong, ANN)))[0] == "PROJECT_NOT_FOUND"
    assert not (await submit(it, "x", request_id="r")).existed


async def test_the_repeated_request_of_a_deleted_job_never_makes_a_second_one(it: World) -> None:
    job = await cancelled(it, "x", request_id="r")
    await it.manager.delete(JobRef(uid=job.uid), ANN)
    assert (await refusal(submit(it, "x", request_id="r")))[0] == "JOB_NOT_FOUND"
    other = await cancelled(it, "y")
    new = (await retried(it, "y", request_id="q")).job
    await it.ended(new.uid)
    await it.manager.delete(JobRef(uid=new.uid), ANN)
    assert (await refusal(retried(it, other.uid, request_id="q")))[0] == "JOB_NOT_FOUND"


async def test_a_repetition_is_answered_though_its_project_is_gone(it: World) -> None:
    first = await submit(it, "x", request_id="r")
    asked = request(it, "x", request_id="r")
    await asyncio.to_thread(Path(asked.config.project_path).unlink)
    assert (await it.manager.submit(asked, ANN)).job.uid == first.job.uid


# Ids ------------------------------------------------------------------------------------------------------


async def test_ones_own_live_id_with_an_equal_config_is_answered_with_that_job(it: World) -> None:
    labels = {"a": "1", "b": "2"}
    first = await submit(it, "x", config={"labels": labels}, priority=2)
    same = await submit(it, "x", config={"labels": dict(reversed(labels.items()))}, priority=2)
    assert (same.existed, same.job.uid) == (True, first.job.uid)
    others: list[dict[str, Any]] = [
        {"config": {"labels": labels}, "priority": 3},
        {"config": {"labels": labels}, "priority": 2, "hold": False},
        {"config": {"labels": labels, "cores": 1}, "priority": 2},
    ]
    for other in others:
        assert await refusal(submit(it, "x", **other)) == ("JOB_EXISTS", {"uid": first.job.uid})


async def test_it_is_compared_as_it_was_sent_not_as_it_is_now(it: World) -> None:
    first = await submit(it, "x")
    await it.manager.set_priority(JobRef(id="x"), 7, ANN)
    assert (await submit(it, "x")).job.uid == first.job.uid
    assert (await refusal(submit(it, "x", priority=7)))[0] == "JOB_EXISTS"


@pytest.mark.parametrize("ended", [False, True])
async def test_an_id_of_another_user_is_taken_ended_or_not(it: World, ended: bool) -> None:
    first = (await submit(it, "x")).job
    if ended:
        await it.manager.cancel(JobRef(uid=first.uid), ANN, None)
    assert await refusal(submit(it, "x", BOB)) == ("JOB_EXISTS", {"uid": first.uid})
    if ended:
        assert not (await submit(it, "x")).existed, "one's own id is free again"
        await it.manager.cancel(JobRef(id="x"), ANN, None)
        for uid in (first.uid, (await it.manager.get(JobRef(id="x"))).uid):
            await it.manager.delete(JobRef(uid=uid), ANN)
        assert (await submit(it, "x", BOB)).job.user == "bob", "nothing on record has it"


async def test_the_user_is_the_callers_own_unless_an_administrator_names_another(it: World) -> None:
    assert (await submit(it, "x", BOB)).job.user == "bob"
    assert (await submit(it, "y", BOB, user="bob")).job.user == "bob"
    assert (await refusal(submit(it, "z", BOB, user="ann")))[0] == "PERMISSION_DENIED"
    assert (await submit(it, "z", ADMIN, user="bob")).job.user == "bob"


async def test_two_users_cannot_take_one_id_in_one_commit(it: World) -> None:
    done = await asyncio.gather(submit(it, "x"), submit(it, "x", BOB), return_exceptions=True)
    assert sorted(type(item).__name__ for item in done) == ["Accepted", "Refused"]


# Many -----------------------------------------------------------------------------------------------------


async def test_too_many_items_are_refused_with_the_limit(it: World) -> None:
    one = request(it, "")
    assert await refusal(it.manager.submit_many([one] * 1001, ANN)) == ("TOO_MANY_ITEMS", {"limit": "1000"})
    named = pb.JobFilter(jobs=[JobRef(id=f"j{number}") for number in range(1001)])
    assert await refusal(it.manager.cancel_many(named, False, ANN, None)) == ("TOO_MANY_ITEMS", {"limit": "1000"})


# Lists ----------------------------------------------------------------------------------------------------


async def test_a_list_says_where_a_watch_begins(it: World) -> None:
    await submit(it, "x")
    page = await it.manager.list_jobs(pb.ListJobsRequest(page_size=1))
    revision = page.position.revision
    assert page.position == event_pb2.Position(revision=revision, store_id=it.manager.store_id)
    assert revision > 0
    await submit(it, "y")
    again = await it.manager.list_jobs(pb.ListJobsRequest(page_size=1))
    following = await it.manager.list_jobs(pb.ListJobsRequest(page_size=7, page_token=again.next_page_token))
    assert following.position == again.position, "the same in every page"
    assert (again.total_size, following.total_size) == (2, 2)


async def test_orders_of_a_list(it: World) -> None:
    for name in ("a", "b", "c"):
        await submit(it, name)
    for order, expected in (
        (pb.JOB_ORDER_UNSPECIFIED, "abc"),
        (pb.JOB_ORDER_CREATE_TIME, "abc"),
        (pb.JOB_ORDER_CREATE_TIME_DESCENDING, "cba"),
    ):
        page = await it.manager.list_jobs(pb.ListJobsRequest(order=order))
        assert "".join(job.id for job in page.jobs) == expected


async def test_sizes_of_pages(it: World) -> None:
    await submit(it, "x")
    assert len((await it.manager.list_jobs(pb.ListJobsRequest(page_size=5000))).jobs) == 1
    assert (await refusal(it.manager.list_jobs(pb.ListJobsRequest(page_size=-1))))[0] == "INVALID_REQUEST"


async def test_every_field_of_a_filter(it: World) -> None:
    one = (await submit(it, "one", config={"labels": {"k": "v"}, "batch": "b1"})).job
    await submit(it, "two", BOB, config={"labels": {"k": "w"}, "batch": "b2"}, hold=False)
    await it.manager.cancel(JobRef(id="two"), ADMIN, None)
    three = await cancelled(it, "three")
    now, past = Timestamp(), Timestamp(seconds=1)
    now.GetCurrentTime()
    now.seconds += 60
    for values, expected in (
        ({"jobs": [JobRef(uid=one.uid), JobRef(id="three")]}, ["one", "three"]),
        ({"states": [S.JOB_STATE_QUEUED]}, ["one"]),
        ({"ended": False}, ["one"]),
        ({"ended": True}, ["two", "three"]),
        ({"ended": True, "states": [S.JOB_STATE_QUEUED]}, []),
        ({"held": True}, ["one"]),
        ({"held": False}, ["two", "three"]),
        ({"end_reasons": [S.END_REASON_CANCELLED]}, ["two", "three"]),
        ({"users": ["bob", "nobody"]}, ["two"]),
        ({"batches": ["b1", "b2"]}, ["one", "two"]),
        ({"labels": {"k": "v"}}, ["one"]),
        ({"project_path": three.project_path}, ["three"]),
        ({"project_path": three.project_path.removesuffix(".aedt")}, []),
        ({"schedulers": ["local"]}, ["one", "two", "three"]),
        ({"schedulers": ["slurm"]}, []),
        ({"create_time_from": past, "create_time_before": now}, ["one", "two", "three"]),
        ({"create_time_from": now}, []),
        ({"end_time_from": past}, ["two", "three"]),
        ({"end_time_before": now, "users": ["ann"]}, ["three"]),
        ({"end_time_before": past}, []),
    ):
        assert await listed(it, **values) == expected, values


@pytest.mark.parametrize("name", ["states", "end_reasons"])
async def test_an_unspecified_value_in_a_filter_is_refused(it: World, name: str) -> None:
    with pytest.raises(Refused) as refused:
        await listed(it, **{name: [1 if name == "end_reasons" else 2, 0]})
    assert (refused.value.reason, [*refused.value.fields]) == ("INVALID_REQUEST", [f"filter.{name}[1]"])


async def test_the_filter_of_a_watch_is_checked_alike(it: World) -> None:
    for wrong in (
        pb.JobFilter(states=[S.JOB_STATE_UNSPECIFIED]),
        pb.JobFilter(jobs=[JobRef()]),
        pb.JobFilter(end_reasons=[S.END_REASON_UNSPECIFIED]),
    ):
        with pytest.raises(Refused) as refused:
            it.manager.watch(pb.WatchJobsRequest(filter=wrong))
        assert refused.value.reason == "INVALID_REQUEST"


async def test_the_project_of_a_filter_is_the_real_path_of_the_job(it: World) -> None:
    real = it.project("real")
    link = it.folder / "link.aedt"
    link.symlink_to(real)
    await it.submit("x", project_path=str(link), hold=True)
    job = await it.manager.get(JobRef(id="x"))
    assert (job.project_path, job.config.project_path) == (str(real), str(link))
    assert await listed(it, project_path=str(real)) == ["x"]
    assert await listed(it, project_path=str(link)) == []


# Cancelling -----------------------------------------------------------------------------------------------


async def test_a_cancelled_job_is_answered_as_it_is_and_another_ended_one_is_not(it: World) -> None:
    job = await cancelled(it, "x")
    again = await it.manager.cancel(JobRef(uid=job.uid), ANN, 0.0)
    assert (again.state, again.revision) == (S.JOB_STATE_CANCELLED, job.revision)
    assert (await refusal(it.manager.cancel(JobRef(uid=job.uid), ANN, None, refuse_cancelled=True)))[0] == "JOB_ENDED"
    done = await it.ended(await it.submit("done"))
    expected = {"uid": done.uid, "state": "COMPLETED"}
    assert await refusal(it.manager.cancel(JobRef(uid=done.uid), ANN, None)) == ("JOB_ENDED", expected)


@pytest.mark.parametrize("grace", [-0.1, 3600.1])
async def test_a_grace_period_out_of_range_is_an_invalid_request(it: World, grace: float) -> None:
    await submit(it, "x")
    with pytest.raises(Refused) as refused:
        await it.manager.cancel(JobRef(id="x"), ANN, grace)
    assert (refused.value.reason, [*refused.value.fields]) == ("INVALID_REQUEST", ["grace_period"])
    with pytest.raises(Refused, match="grace_period"):
        await it.manager.cancel_many(pb.JobFilter(), True, ANN, grace)


def results(answer: pb.CancelJobsResponse) -> list[tuple[str, str]]:
    found = []
    for item in answer.results:
        name = item.job.uid or item.job.id
        if item.WhichOneof("result") == "changed":
            assert (item.error_reason, item.changed.view) == (0, job_pb2.JOB_VIEW_BASIC)
            found.append((name, S.JobState.Name(item.changed.state).removeprefix("JOB_STATE_")))
        else:
            info = ErrorInfo()
            assert item.error.details[0].Unpack(info)
            assert item.error_reason == errors_pb2.ErrorReason.Value(f"ERROR_REASON_{info.reason}")
            found.append((name, info.reason))
    return found


@pytest.mark.parametrize("job_filter", [pb.JobFilter(), pb.JobFilter(include_superseded=True)])
async def test_a_filter_without_a_field_needs_all(it: World, job_filter: pb.JobFilter) -> None:
    await submit(it, "x")
    assert (await refusal(it.manager.cancel_many(job_filter, False, ANN, None)))[0] == "FILTER_REQUIRED"
    assert len((await it.manager.cancel_many(job_filter, True, ANN, None)).results) == 1


async def test_many_are_cancelled_oldest_first_and_in_one_transaction(it: World) -> None:
    jobs = [(await submit(it, f"j{number}")).job for number in range(3)]
    before = it.manager.live_jobs().revision
    answer = await it.manager.cancel_many(pb.JobFilter(ended=False), False, ANN, None)
    assert results(answer) == [(job.uid, "CANCELLED") for job in jobs]
    assert it.manager.live_jobs().revision == before + 3
    times = {(await it.get(job.uid)).end_time.ToNanoseconds() for job in jobs}
    assert len(times) == 1, "one commit"
    assert results(await it.manager.cancel_many(pb.JobFilter(held=True), False, ANN, None)) == []
    assert results(await it.manager.cancel_many(pb.JobFilter(ended=True), False, ANN, None)) == []


async def test_named_jobs_that_it_does_not_apply_to_are_errors(it: World) -> None:
    done = await it.ended(await it.submit("done"))
    gone = await cancelled(it, "gone")
    live = (await submit(it, "live")).job
    names = [JobRef(id="nobody"), JobRef(id="live"), JobRef(uid=live.uid), JobRef(uid=done.uid), JobRef(id="gone")]
    answer = await it.manager.cancel_many(pb.JobFilter(jobs=names), False, ANN, None)
    expected = [(done.uid, "JOB_ENDED"), ("gone", "CANCELLED"), ("live", "CANCELLED"), ("nobody", "JOB_NOT_FOUND")]
    assert results(answer) == expected
    assert gone.uid != live.uid
    only_live = pb.JobFilter(jobs=names, states=[S.JOB_STATE_QUEUED])
    assert results(await it.manager.cancel_many(only_live, False, ANN, None)) == [("nobody", "JOB_NOT_FOUND")]


async def test_jobs_of_others_are_left_alone_and_an_error_if_they_are_named(it: World) -> None:
    theirs = (await submit(it, "theirs")).job
    own = (await submit(it, "own", BOB)).job
    named = pb.JobFilter(jobs=[JobRef(uid=theirs.uid)])
    assert results(await it.manager.cancel_many(named, False, BOB, None)) == [(theirs.uid, "PERMISSION_DENIED")]
    assert results(await it.manager.cancel_many(pb.JobFilter(), True, BOB, None)) == [(own.uid, "CANCELLED")]


async def test_a_bounded_number_is_cancelled_at_once(it: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "MAX_SELECTED", 2)
    jobs = [(await submit(it, f"j{number}")).job.uid for number in range(5)]
    found: list[str] = []
    calls = 0
    more = True
    while more:
        answer = await it.manager.cancel_many(pb.JobFilter(), True, ANN, None)
        found += [name for name, _ in results(answer)]
        more, calls = answer.more, calls + 1
    assert (found, calls) == (jobs, 3)


async def test_an_answer_that_would_be_too_large_takes_fewer(it: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "MAX_BYTES", 4000)
    jobs = [(await submit(it, f"j{number}")).job.uid for number in range(4)]
    answer = await it.manager.cancel_many(pb.JobFilter(), True, ANN, None)
    assert answer.more
    assert 0 < len(answer.results) < 4
    rest = await it.manager.cancel_many(pb.JobFilter(), True, ANN, None)
    assert [item.job.uid for item in (*answer.results, *rest.results)] == jobs


async def test_runs_that_must_be_ended_are_ended_after_the_commit_and_not_selected_again(it: World) -> None:
    (it.folder / "projects").mkdir(exist_ok=True)
    (it.folder / "projects" / "long.aedt.wait").touch()
    uid = await it.submit("long")
    await it.until(uid, lambda job: job.state == S.JOB_STATE_RUNNING)
    answer = await it.manager.cancel_many(pb.JobFilter(), True, ANN, 20.0)
    assert results(answer) == [(uid, "RUNNING")]
    assert answer.results[0].changed.HasField("cancel_request_time")
    assert results(await it.manager.cancel_many(pb.JobFilter(), True, ANN, 30.0)) == [], "it is being cancelled"
    assert results(await it.manager.cancel_many(pb.JobFilter(), True, ANN, 0.0)) == [(uid, "RUNNING")]
    assert (await it.ended(uid)).state == S.JOB_STATE_CANCELLED


# Retrying and deleting ------------------------------------------------------------------------------------


async def test_a_retry_supersedes_the_job_in_one_commit_with_two_events(it: World) -> None:
    old = await cancelled(it, "x", config={"labels": {"k": "v"}}, priority=3)
    before = it.manager.live_jobs().revision
    accepted = await retried(it, "x")
    new = accepted.job
    assert (new.id, new.retry_of, new.priority, new.held, accepted.existed) == ("x", old.uid, 3, False, False)
    assert new.config == old.config
    after = await it.get(old.uid)
    assert (after.superseded_by, after.state, after.end_time) == (new.uid, old.state, old.end_time)
    first = (await it.manager.job_events(JobRef(uid=new.uid), before, 10)).changes.events[0]
    (second,) = (await it.manager.job_events(JobRef(uid=old.uid), before, 10)).changes.events
    assert (first.revision, second.revision) == (before + 1, before + 2)
    assert first.time == second.time
    assert second.job_change.type == event_pb2.JOB_CHANGE_TYPE_SUPERSEDED
    assert second.message == f"retried as {new.uid}"
    assert second.job_change.job.superseded_by == new.uid


async def test_a_superseded_job_is_listed_only_if_asked_for(it: World) -> None:
    old = await cancelled(it, "x")
    await retried(it, "x")
    assert await listed(it) == ["x"]
    assert await listed(it, include_superseded=True) == ["x", "x"]
    assert await listed(it, jobs=[JobRef(uid=old.uid)]) == ["x"]
    assert (await it.manager.wait(JobRef(uid=old.uid), 60)).uid == old.uid, "it has ended"


async def test_a_job_is_retried_once(it: World) -> None:
    job = (await submit(it, "x")).job
    assert await refusal(retried(it, "x")) == ("JOB_NOT_ENDED", {"uid": job.uid, "state": "QUEUED"})
    await it.manager.cancel(JobRef(id="x"), ANN, None)
    new = (await retried(it, "x")).job
    expected = "JOB_SUPERSEDED", {"uid": job.uid, "superseded_by": new.uid}
    assert await refusal(retried(it, job.uid)) == expected
    await it.ended(new.uid)
    done = await asyncio.gather(retried(it, new.uid), retried(it, new.uid), return_exceptions=True)
    assert sorted(type(item).__name__ for item in done) == ["Accepted", "Refused"]


async def test_a_repeated_retry_is_answered_with_the_new_job_however_the_old_one_is_named(it: World) -> None:
    old = await cancelled(it, "x")
    new = (await retried(it, "x", request_id="r")).job
    for name in ("x", old.uid):
        again = await retried(it, name, request_id="r")
        assert (again.job.uid, again.existed) == (new.uid, True)
    await cancelled(it, "other")
    assert await refusal(retried(it, "other", request_id="r")) == ("REQUEST_ID_REUSED", {"uid": new.uid})
    assert (await refusal(retried(it, "x", request_id="r" * 65)))[0] == "INVALID_REQUEST"


async def test_a_retry_while_another_job_has_the_id(it: World) -> None:
    old = await cancelled(it, "x")
    live = (await submit(it, "x", priority=1)).job
    assert await refusal(retried(it, old.uid)) == ("JOB_EXISTS", {"uid": live.uid})
    assert not (await it.get(old.uid)).superseded_by, "nothing of it was done"


async def test_a_job_is_deleted_by_uid_with_those_that_it_superseded(it: World) -> None:
    first = await it.ended(await it.submit("x"))
    second = await it.ended((await retried(it, "x")).job.uid)
    third = await it.ended((await retried(it, "x")).job.uid)
    folders = [Path(job.attempts[-1].run_directory) for job in (first, second, third)]
    assert all(folder.is_dir() for folder in folders)
    with pytest.raises(Refused) as refused:
        await it.manager.delete(JobRef(id="x"), ANN)
    assert (refused.value.reason, [*refused.value.fields]) == ("INVALID_REQUEST", ["job.id"])
    await it.manager.delete(JobRef(uid=second.uid), ANN)
    assert [folder.is_dir() for folder in folders] == [False, False, True]
    assert (await it.get(third.uid)).uid == third.uid
    await it.manager.delete(JobRef(uid=third.uid), ANN)
    assert await listed(it, include_superseded=True) == []
    assert (await refusal(it.manager.delete(JobRef(uid=third.uid), ANN)))[0] == "JOB_NOT_FOUND"


async def test_a_live_job_is_not_deleted(it: World) -> None:
    job = (await submit(it, "x")).job
    expected = {"uid": job.uid, "state": "QUEUED"}
    assert await refusal(it.manager.delete(JobRef(uid=job.uid), ANN)) == ("JOB_NOT_ENDED", expected)


# Waiting and previewing -----------------------------------------------------------------------------------


async def test_a_wait_of_no_time_answers_at_once_and_a_negative_one_is_refused(it: World) -> None:
    await submit(it, "x")
    job = await asyncio.wait_for(it.manager.wait(JobRef(id="x"), 0), 10)
    assert not job.HasField("end_time")
    assert (await refusal(it.manager.wait(JobRef(id="x"), -1)))[0] == "INVALID_REQUEST"


async def test_a_preview_says_where_it_would_run_and_what_it_would_reserve(it: World) -> None:
    config = {"cores": 3, "memory_bytes": 5 * 1024**2, "licenses": {"hfss": 2}}
    preview = await it.manager.preview(request(it, "x", config=config), ANN)
    assert preview.scheduler == "local"
    assert preview.reservation == job_pb2.Reservation(cores=3, memory_bytes=5 * 1024**2, licenses={"hfss": 2})


def test_the_reason_of_an_item_is_that_of_its_status() -> None:
    info = ErrorInfo()
    assert to_status(Refused("JOB_ENDED", "x")).details[0].Unpack(info)
    assert info.reason == "JOB_ENDED"
