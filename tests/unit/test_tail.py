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
from edbjobs_server.manager import log_tail as tail_module
from edbjobs_server.manager.log_tail import Output, tail
from edbjobs_server.solver.batch_log import find_log
from edbjobs_server.util import files
from edbjobs_server.util.path_workers import PathWorkers

SOLVER = jobs_messages_pb2.LOG_STREAM_SOLVER
STDOUT = jobs_messages_pb2.LOG_STREAM_STDOUT
Response = jobs_messages_pb2.TailLogResponse


class Run:
    """A job with one attempt, its output, and a reader of it that runs step by step."""

    def __init__(self, folder: Path, stream: jobs_messages_pb2.LogStream.ValueType = SOLVER) -> None:
        self.project = folder / "p.aedt"
        self.job = job_pb2.Job(id="j", attempt=1, run_directory=str(folder / "7.1"))
        self.job.attempts.add(number=1)
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

    def tail(self, paths: PathWorkers, **request: Any) -> AsyncIterator[Response]:
        asked = jobs_messages_pb2.TailLogRequest(stream=self.stream, **request)
        return tail(asked, self.get, paths, str(self.project))


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> PathWorkers:
    monkeypatch.setattr(tail_module, "POLL_SECONDS", 0.01)
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
    following = asyncio.create_task(collect(run.tail(paths, follow=1)))
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
    monkeypatch.setattr(tail_module, "CHUNK", 10)
    run = Run(tmp_path)
    run.path.write_bytes(b"0123456789" * 3)
    messages = run.tail(paths)
    first = await anext(messages)
    assert (first.data, first.offset) == (b"0123456789", 0)
    run.path.write_bytes(b"new")
    (last,) = [message async for message in messages]
    assert (last.data, last.offset, last.eof) == (b"", 0, False)


async def test_nothing_that_was_written_before_the_end_is_missed(tmp_path: Path, paths: PathWorkers) -> None:
    run = Run(tmp_path, STDOUT)
    following = asyncio.create_task(collect(run.tail(paths, follow=1)))
    await run.wait()
    run.path.write_bytes(b"all at once")
    run.end()
    messages = await asyncio.wait_for(following, 30)
    assert b"".join(message.data for message in messages) == b"all at once"
    assert messages[-1].eof


async def test_a_follower_stays_with_its_attempt(tmp_path: Path, paths: PathWorkers) -> None:
    run = Run(tmp_path, STDOUT)
    run.path.write_bytes(b"first ")
    following = asyncio.create_task(collect(run.tail(paths, follow=1)))
    await run.wait()
    append(run.path, b"attempt")
    run.end()
    run.job.attempt = 2
    run.job.run_directory = str(tmp_path / "7.2")
    run.job.attempts.add(number=2)
    messages = await asyncio.wait_for(following, 30)
    assert b"".join(message.data for message in messages) == b"first attempt"
    assert {message.attempt for message in messages} == {1}


async def test_a_limit_and_offsets(tmp_path: Path, paths: PathWorkers) -> None:
    run = Run(tmp_path, STDOUT)
    run.path.write_bytes(b"0123456789")
    run.end()
    for request, data, offset in (
        ({"offset": 3, "limit": 4}, b"3456", 3),
        ({"offset": -2}, b"89", 8),
        ({"offset": -200}, b"0123456789", 0),
    ):
        messages = await collect(run.tail(paths, **request))
        assert (messages[0].data, messages[0].offset) == (data, offset)
    for offset in (11, 2**63 - 1):
        with pytest.raises(Refused) as refused:
            await collect(run.tail(paths, offset=offset))
        assert (refused.value.reason, refused.value.metadata) == ("OFFSET_BEYOND_END", {"size_bytes": "10"})
        (last,) = await collect(run.tail(paths, offset=offset, follow=1))
        assert (last.offset, last.eof) == (offset, True)


async def test_missing_outputs_are_refused(tmp_path: Path, paths: PathWorkers) -> None:
    run = Run(tmp_path)
    with pytest.raises(Refused, match=r"attempt 1 has no such output: .*j-7-1.log does not exist") as refused:
        await collect(run.tail(paths))
    assert refused.value.reason == "LOG_NOT_FOUND"
    run.job.attempt = 0
    with pytest.raises(Refused, match="has not started"):
        await collect(run.tail(paths))


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs")
@pytest.mark.parametrize("follow", [0, 1])
async def test_a_fifo_in_place_of_a_log_is_refused_at_once(tmp_path: Path, paths: PathWorkers, follow: int) -> None:
    run = Run(tmp_path)
    os.mkfifo(run.path)
    with pytest.raises(Refused, match="cannot be read: expected a regular file, got a FIFO") as refused:
        await asyncio.wait_for(collect(run.tail(paths, follow=follow)), 30)
    assert refused.value.reason == "LOG_NOT_FOUND"


def test_a_short_outage_of_the_file_server_does_not_end_a_follower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, STDOUT)
    run.path.write_bytes(b"one")
    output = Output(jobs_messages_pb2.TailLogRequest(stream=STDOUT, follow=True), "")
    assert output.read(run.job).data == b"one"
    run.end()
    append(run.path, b"two")
    with monkeypatch.context() as patch:

        def stale(*_: object, **__: object) -> None:
            raise OSError(errno.ESTALE, "Stale file handle", str(run.path))

        patch.setattr(files, "open_regular", stale)
        piece = output.read(run.job)
        assert (piece.data, piece.ended) == (b"", False), "its end was not read yet"
        patch.setattr(tail_module, "UNREACHABLE_SECONDS", 0)
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
        Output(jobs_messages_pb2.TailLogRequest(stream=STDOUT), "").read(run.job)
    assert refused.value.reason == "PATH_UNREACHABLE"
