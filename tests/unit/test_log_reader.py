"""Outputs are read by offset and followed to their end, also if the file is truncated or replaced."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from edbjobs.v1 import job_pb2, jobs_messages_pb2
from edbjobs_server.core.errors import Refused
from edbjobs_server.manager import log_reader
from edbjobs_server.manager.log_reader import Output, read_log
from edbjobs_server.solver.batch_log import find_log
from edbjobs_server.util import files
from edbjobs_server.util.path_workers import PathWorkers

SOLVER = jobs_messages_pb2.LOG_STREAM_SOLVER
STDOUT = jobs_messages_pb2.LOG_STREAM_STDOUT
Response = jobs_messages_pb2.ReadLogResponse


class Run:
    """A job with one attempt, its output, and a reader of it that runs step by step."""

    def __init__(self, folder: Path, stream: jobs_messages_pb2.LogStream.ValueType = SOLVER) -> None:
        self.project = folder / "p.aedt"
        self.job = job_pb2.Job(id="j", uid="u", attempt_count=1)
        self.job.attempts.add(number=1, run_directory=str(folder / "7.1"))
        self.path = find_log(self.project, "j-7-1") if stream == SOLVER else folder / "7.1" / "stdout"
        self.path.parent.mkdir()
        self.stream = stream
        self.asked = asyncio.Event()

    async def get(self) -> job_pb2.Job:
        self.asked.set()
        return self.job

    async def wait(self) -> None:
        """Wait until the follower has read the whole output and requests the job again."""
        for _ in range(2):
            self.asked.clear()
            await self.asked.wait()

    def end(self) -> None:
        self.job.attempts[0].end_time.FromSeconds(1)

    def read(self, paths: PathWorkers, **request: Any) -> AsyncIterator[Response]:
        asked = jobs_messages_pb2.ReadLogRequest(stream=self.stream, **request)
        return read_log(asked, self.get, paths, str(self.project))


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> PathWorkers:
    monkeypatch.setattr(log_reader, "POLL_SECONDS", 0.01)
    return PathWorkers()


async def collect(messages: AsyncIterator[Response]) -> list[Response]:
    return [message async for message in messages]


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@pytest.mark.parametrize("how", ["cut", "cut and longer", "replaced", "removed and made again"])
async def test_a_log_truncated_while_followed_is_sent_from_its_start(
    tmp_path: Path, paths: PathWorkers, how: str
) -> None:
    run = Run(tmp_path)
    run.path.write_bytes(b"old line\n" * 40)
    following = asyncio.create_task(collect(run.read(paths, follow=1)))
    await run.wait()
    if how == "removed and made again":
        run.path.unlink()
        await run.wait()
    elif how == "replaced":
        (tmp_path / "other").write_bytes(b"NEW\n")
        (tmp_path / "other").replace(run.path)
    if how == "cut and longer":
        run.path.write_bytes(b"NEW\n" * 1000)
    elif how != "replaced":
        run.path.write_bytes(b"NEW\n")
    await run.wait()
    append(run.path, b"END\n")
    run.end()
    messages = await asyncio.wait_for(following, 30)
    assert messages[0].data == b"old line\n" * 40
    again = next(message for message in messages[1:] if message.data)
    assert again.offset == 0
    text = b"".join(message.data for message in messages[1:])
    assert text == run.path.read_bytes()
    assert (messages[-1].eof, messages[-1].offset) == (True, len(text))


async def test_a_log_truncated_while_read_without_following_ends_there(
    tmp_path: Path, paths: PathWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "CHUNK", 10)
    run = Run(tmp_path)
    run.path.write_bytes(b"0123456789" * 3)
    messages = run.read(paths)
    first = await anext(messages)
    assert (first.data, first.offset) == (b"0123456789", 0)
    run.path.write_bytes(b"new")
    (last,) = [message async for message in messages]
    assert (last.data, last.offset, last.eof) == (b"", 0, False)


async def test_nothing_that_was_written_before_the_end_is_missed(tmp_path: Path, paths: PathWorkers) -> None:
    run = Run(tmp_path, STDOUT)
    following = asyncio.create_task(collect(run.read(paths, follow=1)))
    await run.wait()
    run.path.write_bytes(b"all at once")
    run.end()
    messages = await asyncio.wait_for(following, 30)
    assert b"".join(message.data for message in messages) == b"all at once"
    assert messages[-1].eof


async def test_a_follower_stays_with_its_attempt(tmp_path: Path, paths: PathWorkers) -> None:
    run = Run(tmp_path, STDOUT)
    run.path.write_bytes(b"first ")
    following = asyncio.create_task(collect(run.read(paths, follow=1)))
    await run.wait()
    append(run.path, b"attempt")
    run.end()
    run.job.attempt_count = 2
    run.job.attempts.add(number=2, run_directory=str(tmp_path / "7.2"))
    messages = await asyncio.wait_for(following, 30)
    assert b"".join(message.data for message in messages) == b"first attempt"
    assert {message.attempt for message in messages} == {1}


async def test_a_limit_and_offsets(tmp_path: Path, paths: PathWorkers) -> None:
    run = Run(tmp_path, STDOUT)
    run.path.write_bytes(b"0123456789")
    run.end()
    for request, data, offset in (
        ({"offset": 3, "max_bytes": 4}, b"3456", 3),
        ({"offset": -2}, b"89", 8),
        ({"offset": -200}, b"0123456789", 0),
    ):
        messages = await collect(run.read(paths, **request))
        assert (messages[0].data, messages[0].offset) == (data, offset)
    for offset in (11, 2**63 - 1):
        with pytest.raises(Refused) as refused:
            await collect(run.read(paths, offset=offset))
        assert (refused.value.reason, refused.value.metadata) == ("OFFSET_BEYOND_END", {"size_bytes": "10"})
        with pytest.raises(Refused, match="lies beyond the end"):
            await collect(run.read(paths, offset=offset, follow=1))


async def test_missing_outputs_are_refused(tmp_path: Path, paths: PathWorkers) -> None:
    run = Run(tmp_path)
    with pytest.raises(Refused, match=r"attempt 1 has no such output: .*j-7-1.log does not exist") as refused:
        await collect(run.read(paths))
    assert refused.value.reason == "LOG_NOT_FOUND"


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs")
@pytest.mark.parametrize("follow", [0, 1])
async def test_a_fifo_in_place_of_a_log_is_refused_at_once(tmp_path: Path, paths: PathWorkers, follow: int) -> None:
    run = Run(tmp_path)
    os.mkfifo(run.path)
    with pytest.raises(Refused, match="cannot be read: expected a regular file, got a FIFO") as refused:
        await asyncio.wait_for(collect(run.read(paths, follow=follow)), 30)
    assert refused.value.reason == "LOG_NOT_FOUND"


def test_a_short_outage_of_the_file_server_does_not_end_a_follower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, STDOUT)
    run.path.write_bytes(b"one")
    output = Output(jobs_messages_pb2.ReadLogRequest(stream=STDOUT, follow=True), "")
    assert output.read(run.job).data == b"one"
    run.end()
    append(run.path, b"two")
    with monkeypatch.context() as patch:

        def stale(*_: object, **__: object) -> None:
            raise OSError(errno.ESTALE, "Stale file handle", str(run.path))

        patch.setattr(files, "open_regular", stale)
        piece = output.read(run.job)
        assert (piece.data, piece.ended) == (b"", False), "its end was not read yet"
        patch.setattr(log_reader, "UNREACHABLE_SECONDS", 0)
        with pytest.raises(Refused, match="Stale file handle") as refused:
            output.read(run.job)
        assert refused.value.reason == "PATH_UNREACHABLE"
    assert output.read(run.job).data == b"two"
    assert output.read(run.job).ended


def test_an_unreachable_file_is_refused_without_following(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, STDOUT)

    def busy(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files", str(run.path))

    run.path.touch()
    monkeypatch.setattr(files, "open_regular", busy)
    with pytest.raises(Refused, match="try again") as refused:
        Output(jobs_messages_pb2.ReadLogRequest(stream=STDOUT), "").read(run.job)
    assert refused.value.reason == "PATH_UNREACHABLE"


async def test_every_message_names_job_and_attempt_and_the_last_says_so(tmp_path: Path, paths: PathWorkers) -> None:
    run = Run(tmp_path, STDOUT)
    run.path.write_bytes(b"x" * (log_reader.CHUNK + 1))
    run.end()
    messages = await collect(run.read(paths, attempt=1))
    assert [len(message.data) for message in messages] == [log_reader.CHUNK, 1, 0]
    assert {(message.uid, message.attempt) for message in messages} == {("u", 1)}
    assert [message.eof for message in messages] == [False, False, True]


async def test_the_solver_s_log_is_the_default(tmp_path: Path, paths: PathWorkers) -> None:
    run = Run(tmp_path)
    run.path.write_bytes(b"log")
    run.stream = jobs_messages_pb2.LOG_STREAM_UNSPECIFIED
    assert (await collect(run.read(paths)))[0].data == b"log"


async def test_zero_bytes_are_none(tmp_path: Path, paths: PathWorkers) -> None:
    run = Run(tmp_path, STDOUT)
    run.path.write_bytes(b"0123")
    (message,) = await collect(run.read(paths, max_bytes=0, offset=2))
    assert (message.data, message.offset, message.eof) == (b"", 2, False)
    with pytest.raises(Refused) as refused:
        await collect(run.read(paths, max_bytes=-1))
    assert refused.value.reason == "INVALID_REQUEST"


@pytest.mark.parametrize(("attempt", "follow"), [(0, 0), (-1, 0), (2, 0), (3, 1), (None, 0)])
async def test_an_attempt_that_the_job_does_not_have(
    tmp_path: Path, paths: PathWorkers, attempt: int | None, follow: int
) -> None:
    run = Run(tmp_path)
    if attempt is None:
        run.job.attempt_count = 0
        del run.job.attempts[:]
    with pytest.raises(Refused) as refused:
        await collect(run.read(paths, attempt=attempt, follow=follow))
    expected = {"attempt_count": "0" if attempt is None else "1"}
    assert (refused.value.reason, refused.value.metadata) == ("ATTEMPT_NOT_FOUND", expected)


@pytest.mark.parametrize("attempt", [None, 1])
async def test_the_first_attempt_is_waited_for(tmp_path: Path, paths: PathWorkers, attempt: int | None) -> None:
    run = Run(tmp_path, STDOUT)
    run.job.attempt_count = 0
    del run.job.attempts[:]
    following = asyncio.create_task(collect(run.read(paths, attempt=attempt, follow=1)))
    await run.wait()
    run.job.attempt_count = 1
    run.job.attempts.add(number=1, run_directory=str(tmp_path / "7.1"))
    await run.wait()
    run.path.write_bytes(b"at last")
    run.end()
    messages = await asyncio.wait_for(following, 30)
    assert b"".join(message.data for message in messages) == b"at last"
    assert {message.attempt for message in messages} == {1}


async def test_the_attempt_after_the_last_one_is_waited_for_until_the_job_has_ended(
    tmp_path: Path, paths: PathWorkers
) -> None:
    run = Run(tmp_path, STDOUT)
    following = asyncio.create_task(collect(run.read(paths, attempt=2, follow=1)))
    await run.wait()
    run.end()
    run.job.end_time.FromSeconds(2)
    with pytest.raises(Refused) as refused:
        await asyncio.wait_for(following, 30)
    assert refused.value.reason == "ATTEMPT_NOT_FOUND"


async def test_nothing_written_for_a_while_is_a_keepalive(
    tmp_path: Path, paths: PathWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "KEEPALIVE_SECONDS", 0.02)
    run = Run(tmp_path, STDOUT)
    run.path.write_bytes(b"one")
    messages = run.read(paths, follow=1)
    assert (await anext(messages)).data == b"one"
    keepalive = await asyncio.wait_for(anext(messages), 30)
    assert (keepalive.data, keepalive.offset, keepalive.eof) == (b"", 3, False)
    run.end()
    assert (await asyncio.wait_for(collect(messages), 30))[-1].eof
