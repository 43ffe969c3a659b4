"""When a supervisor takes another run, and when it does not."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from edbjobs_server.executors.local.linux import supervisor


class Carried:
    """A run that has been carried through."""

    def __init__(self, *, clean: bool = True) -> None:
        self.clean = clean
        self.told = False

    def leave(self) -> bool:
        return self.clean

    def notify_end(self) -> None:
        self.told = True


@pytest.fixture
def work() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(10)
        yield ours, theirs


HOST = supervisor.Host({"host": "h", "boot": "b", "pidns": "n"}, -1, (10, 10))


def serve(monkeypatch: pytest.MonkeyPatch, runs: list[Carried | Exception | None], work: int) -> list[Any]:
    """Serve with runs that end so; gives the requests that were taken."""
    taken: list[Any] = []

    def supervise(request: Any, *_: Any) -> Carried | None:
        taken.append(request)
        run = runs[len(taken) - 1]
        if isinstance(run, Exception):
            raise run
        return run

    monkeypatch.setattr(supervisor, "supervise", supervise)
    supervisor.serve(json.dumps(1).encode(), HOST, work)
    return taken


def test_it_takes_what_it_gets_until_the_launcher_is_gone(
    monkeypatch: pytest.MonkeyPatch, work: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = work
    for number in (2, 3):
        ours.send(json.dumps(number).encode())
    ours.shutdown(socket.SHUT_WR)
    runs = [Carried(), Carried(), Carried()]
    assert serve(monkeypatch, [*runs], theirs.fileno()) == [1, 2, 3]
    assert all(run.told for run in runs)
    assert [ours.recv(1) for _ in runs] == [b"f"] * 3


@pytest.mark.parametrize("last", [Carried(clean=False), None, RuntimeError("a bug"), OSError("no disk")])
def test_after_anything_unusual_it_takes_no_more(
    monkeypatch: pytest.MonkeyPatch, work: tuple[socket.socket, socket.socket], last: Carried | Exception | None
) -> None:
    ours, theirs = work
    ours.send(b"2")
    if isinstance(last, Exception):
        with pytest.raises(type(last)):
            serve(monkeypatch, [last], theirs.fileno())
    else:
        assert serve(monkeypatch, [last], theirs.fileno()) == [1]
    assert not isinstance(last, Carried) or last.told
    theirs.close()
    with pytest.raises(ConnectionResetError):  # with our request unread; it never said that it is free
        ours.recv(1)


def test_without_a_socket_there_is_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Carried()
    assert serve(monkeypatch, [run], -1) == [1]
    assert run.told


def test_the_launcher_is_gone_when_it_is_free(
    monkeypatch: pytest.MonkeyPatch, work: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = work
    ours.close()
    run = Carried()
    assert serve(monkeypatch, [run], theirs.fileno()) == [1]
    assert run.told


def test_it_does_not_live_for_ever(monkeypatch: pytest.MonkeyPatch, work: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = work
    monkeypatch.setattr(supervisor, "_RUNS", 2)
    for number in (2, 3):
        ours.send(json.dumps(number).encode())
    assert serve(monkeypatch, [Carried(), Carried(), Carried()], theirs.fileno()) == [1, 2]
    assert ours.recv(1) == b"f"
    ours.settimeout(0)
    with pytest.raises(BlockingIOError):  # before the last run it did not promise another
        ours.recv(1)
