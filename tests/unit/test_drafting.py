from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from edbjobs.v1 import job_config_pb2
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs.v1.job_ref_pb2 import JobRef
from edbjobs_server.core.errors import Refused, path_unreachable
from edbjobs_server.core.limits import Host, Limits
from edbjobs_server.core.principal import Principal, Role
from edbjobs_server.manager import draft_batcher, submission
from edbjobs_server.manager.acceptance import Saved
from edbjobs_server.manager.draft_batcher import DraftBatcher
from edbjobs_server.manager.submission import Rules
from edbjobs_server.solver.releases import Release
from edbjobs_server.store import Store
from edbjobs_server.util.path_workers import PathWorkers
from support.store_jobs import Heard, started_store

ME = Principal("me", Role.ADMIN)


def rules() -> Rules:
    release = Release("2025.2", "252", Path("/bin/true"), "settings")
    return Rules(releases=[release], schedulers=frozenset({"local"}), host=Host(cores=2, memory_bytes=4_000 << 20))


def made(store: Store) -> tuple[DraftBatcher, PathWorkers]:
    paths = PathWorkers(path_unreachable)
    return DraftBatcher(paths, rules(), Limits, store), paths


def submit(path: Path, **values: Any) -> pb.SubmitJobRequest:
    return pb.SubmitJobRequest(config=job_config_pb2.JobConfig(project_path=str(path)), **values)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / "p.aedt"
    path.touch()
    return path


async def test_the_response_is_what_was_written(tmp_path: Path, project: Path) -> None:
    async with started_store(tmp_path / "state") as (store, heard):
        drafts, paths = made(store)
        saved, refused = await drafts.submit([submit(project), submit(tmp_path / "none.aedt")], ME)
        assert isinstance(saved, Saved)
        assert isinstance(refused, Refused)
        assert refused.reason == "PROJECT_NOT_FOUND"
        assert saved.message == await store.read(lambda reader: reader.job_bytes(JobRef(uid=saved.job.uid)))
        assert [item.principal for item in heard.events] == [ME]
        paths.close()


async def test_a_repeated_request_returns_the_bytes_of_the_first(tmp_path: Path, project: Path) -> None:
    async with started_store(tmp_path / "state") as (store, _):
        drafts, paths = made(store)
        first, second = await drafts.submit([submit(project, request_id="r")] * 2, ME)
        (third,) = await drafts.submit([submit(project, request_id="r")], ME)
        assert isinstance(first, Saved)
        assert isinstance(second, Saved)
        assert isinstance(third, Saved)
        assert (first.existed, second.existed, third.existed) == (False, True, True)
        assert first.message == second.message == third.message
        paths.close()


async def test_an_abandoned_call_is_not_accepted_later(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, done = threading.Event(), threading.Event()
    original, work = submission.draft_all, DraftBatcher._draft

    def slow(*arguments: Any, **rest: Any) -> object:
        go.wait(20)
        return original(*arguments, **rest)

    def watched(self: DraftBatcher, *arguments: Any) -> None:
        try:
            work(self, *arguments)
        finally:
            done.set()

    monkeypatch.setattr(draft_batcher, "draft_all", slow)
    monkeypatch.setattr(DraftBatcher, "_draft", watched)
    monkeypatch.setattr(draft_batcher, "DEADLINE_SECONDS", 0.05)
    async with started_store(tmp_path / "state") as (store, heard):
        drafts, paths = made(store)
        with pytest.raises(Refused) as refused:
            await drafts.submit([submit(project)], ME)
        assert refused.value.reason == "PATH_UNREACHABLE"
        go.set()
        assert await asyncio.to_thread(done.wait, 20)
        await store.write(lambda tx: None)
        assert heard.events == []
        paths.close()


async def test_an_invalid_call_does_not_affect_others(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = submission.draft_all

    def broken(requests: list[pb.SubmitJobRequest], *arguments: Any, **rest: Any) -> object:
        if requests[0].user == "odd":
            raise ZeroDivisionError
        return original(requests, *arguments, **rest)

    monkeypatch.setattr(draft_batcher, "draft_all", broken)
    async with started_store(tmp_path / "state") as (store, _):
        drafts, paths = made(store)
        calls = [drafts.submit([submit(project, user=user)], ME) for user in ("a", "odd", "b")]
        first, odd, last = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(odd, ZeroDivisionError)
        assert isinstance(first, list)
        assert isinstance(last, list)
        assert [isinstance(item, Saved) for item in (*first, *last)] == [True, True]
        paths.close()


async def test_a_closing_store_refuses_drafted_jobs(tmp_path: Path, project: Path) -> None:
    store = Store.open(tmp_path / "state")
    store.start(asyncio.get_running_loop(), Heard().on_commit, lambda _: None)
    drafts, paths = made(store)
    await store.close()
    with pytest.raises(Refused) as refused:
        await drafts.submit([submit(project)], ME)
    assert refused.value.reason == "DRAINING"
    paths.close()
