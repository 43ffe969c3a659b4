"""When the launcher takes note that supervisors are free."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest
from edbjobs_server.executors.local.linux import launcher, supervisor


class Connected:
    """A launcher with a supervisor that is on a run, and the other ends of its sockets."""

    def __init__(self, service: socket.socket, channel: socket.socket) -> None:
        host = supervisor.Host({"host": "h", "boot": "b", "pidns": "n"}, -1, (10, 10))
        self.service = service
        self.channel = channel.fileno()
        self.launcher = launcher.Launcher(channel, host)
        ours, self.supervisor = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.work = ours.fileno()
        self.launcher._supervisors[os.getpid()] = launcher._Supervisor("a run", ours)
        self.launcher._working[self.work] = os.getpid()
        self.launcher._poller.register(ours, select.POLLIN)
        self._sockets = (channel, ours, self.supervisor, service)

    def close(self) -> None:
        os.close(self.launcher._children)
        for each in self._sockets:
            each.close()


@pytest.fixture
def connected() -> Iterator[Connected]:
    it = Connected(*socket.socketpair())
    yield it
    it.close()


def test_without_requests_a_free_supervisor_is_noticed_at_once(connected: Connected) -> None:
    connected.supervisor.send(b"f")
    assert connected.work in connected.launcher._wait()
    connected.launcher._set_free(connected.work)
    assert connected.launcher._idle == [os.getpid()]


def test_between_requests_it_is_noticed_with_the_next(connected: Connected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_QUIET_SECONDS", 1000.0)  # the test would hang if it waited for the supervisor
    connected.launcher._requested = True
    connected.supervisor.send(b"f")
    connected.service.send(b"a request")
    assert {connected.work, connected.channel} <= connected.launcher._wait()
    assert connected.launcher._requested


def test_after_a_quiet_time_it_is_noticed(connected: Connected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_QUIET_SECONDS", 0.01)
    connected.launcher._requested = True
    connected.supervisor.send(b"f")
    assert connected.work in connected.launcher._wait()
    assert not connected.launcher._requested


def test_a_free_supervisor_alone_does_not_end_the_wait(connected: Connected) -> None:
    """What is polled while requests come one after the other has nothing of the supervisors."""
    connected.launcher._requested = True
    connected.supervisor.send(b"f")
    assert connected.launcher._callers.poll(0) == []
    assert connected.work in dict(connected.launcher._poller.poll(0))
