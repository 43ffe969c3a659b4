"""The service's side of the launcher: starts it, sends requests, receives answers."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from edbjobs_server.executors.local.linux import processes
from edbjobs_server.util.timeouts import timeout

assert sys.platform != "win32"

_log = logging.getLogger(__name__)
_START_SECONDS = 60.0  # a cold interpreter on a slow disk
_UNSENT = 1 << 20  # bytes waiting for the launcher above which senders wait, too
_SEND_SECONDS = 10.0
_LONGEST_ANSWER = 1 << 20


class LauncherGone(Exception):
    """The launcher has ended: whether the run was started is found in its record."""


class NotStarted(Exception):
    """The launcher could not be started.

    Attributes
    ----------
    definite : bool
        It would not be different at the next attempt: a program is missing, for example.
    """

    def __init__(self, message: str, *, definite: bool) -> None:
        super().__init__(message)
        self.definite = definite


class Owner(Protocol):
    """Receiver of the launcher's notifications."""

    def on_supervisor_gone(self, name: str) -> None:
        """Take note that the supervisor of a run has ended with it, or before it."""

    def on_refused(self, name: str, error: OSError) -> None:
        """Take note that a run got no supervisor."""

    def on_launcher_gone(self) -> None:
        """Take note that the launcher has ended."""


class Channel:
    """The connection to one launcher; made by `open`."""

    def __init__(self, ours: socket.socket, owner: Owner) -> None:
        self._socket = ours
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()
        self._drained = asyncio.Event()
        self._received = b""
        self.gone = False
        self.pid = 0  # of the launcher
        self.requests = 0  # sent, or in the way
        self._takes_base = False  # a launcher of an earlier version does not
        self._base: dict[str, str] | None = None  # the environment that was sent to it
        self._ready: asyncio.Future[int] = self._loop.create_future()
        ours.setblocking(False)
        self._loop.add_reader(ours, self._receive)

    @classmethod
    async def open(cls, log: Path, notify: int, owner: Owner) -> Channel:
        """Start a launcher.

        Parameters
        ----------
        log : Path
            File for what the launcher and the supervisors have to say in case of trouble.
        notify : int
            Write end of the pipe for the notifications of supervisors.
        owner : Owner
            Receives the launcher's notifications, on the event loop.

        Raises
        ------
        NotStarted
            If it cannot be started.
        """
        try:
            ours, theirs = socket.socketpair()
            inherited = [theirs.detach()]
            try:
                inherited.append(os.dup(notify))
            except OSError:
                os.close(inherited[0])
                ours.close()
                raise
        except OSError as error:
            raise NotStarted(str(error), definite=not processes.is_transient(error.errno)) from error
        try:
            # The thread owns what it is given: it goes on if this task is cancelled.
            await asyncio.to_thread(_start, log, *inherited)
        except BaseException:
            ours.close()
            raise
        channel = cls(ours, owner)
        try:
            async with timeout(_START_SECONDS):
                channel.pid = await channel._ready
        except (LauncherGone, asyncio.TimeoutError) as error:
            channel.close()
            raise NotStarted(f"it ended while it was started, or did not answer; see {log}", definite=False) from error
        except BaseException:
            channel.close()
            raise
        return channel

    async def request(self, name: str, request: Mapping[str, Any]) -> None:
        """Request a supervisor; the result comes by the run's record and the owner's callbacks.

        Parameters
        ----------
        name : str
            Name of the run.
        request : dict
            As the launcher takes it, with the whole environment of the run in ``env``.

        Raises
        ------
        LauncherGone
            If the launcher has ended.
        """
        if self.gone:
            raise LauncherGone
        self.requests += 1
        self._send(self._frames(name, request))
        if len(self._unsent) > _UNSENT:
            self._drained.clear()
            with suppress(asyncio.TimeoutError):  # the launcher stands still; the request waits without its sender
                async with timeout(_SEND_SECONDS):
                    await self._drained.wait()

    def _frames(self, name: str, request: Mapping[str, Any]) -> bytes:
        """Return a request that has only what is different in its environment; before the first, what is not."""
        if not self._takes_base:
            return _frame(name, request)
        environment = request["env"]
        before = b""
        if self._base is None:  # nearly all runs have nearly all of it
            self._base = dict(environment)
            before = _frame("", self._base)
        different = {each: value for each, value in environment.items() if self._base.get(each) != value}
        unset = [each for each in self._base if each not in environment]
        return before + _frame(name, {**request, "env": different, "unset": unset})

    def close(self) -> None:
        """Let the launcher go: it stays until its last supervisor has ended."""
        if self.gone:
            return
        self.gone = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._unsent.clear()
        self._drained.set()
        if not self._ready.done():
            self._ready.set_exception(LauncherGone())

    def _lose(self) -> None:
        started = self._ready.done()
        self.close()
        if started:
            self._owner.on_launcher_gone()

    def _send(self, data: bytes) -> None:
        if not self._unsent:
            try:
                data = data[self._socket.send(data) :]
            except OSError as error:
                if not _is_momentary(error):
                    self._lose()
                    return
            if data:
                self._loop.add_writer(self._socket, self._send_more)
        self._unsent += data

    def _send_more(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except OSError as error:
            if not _is_momentary(error):
                self._lose()
            return
        if not self._unsent:
            self._loop.remove_writer(self._socket)
            self._drained.set()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except OSError as error:
            if _is_momentary(error):
                return
            data = b""
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._understand(line)
        if not self.gone and (not data or len(self._received) > _LONGEST_ANSWER):
            self._lose()

    def _understand(self, line: bytes) -> None:
        try:
            answer = json.loads(line)
            if "launcher" in answer:
                pid = int(answer["launcher"])
                if not self._ready.done():
                    self._takes_base = answer.get("base") is True
                    self._ready.set_result(pid)
            elif "gone" in answer:
                self._owner.on_supervisor_gone(str(answer["gone"]))
            else:
                error = OSError(int(answer["errno"] or 0), str(answer["error"]))
                self._owner.on_refused(str(answer["name"]), error)
        except (ValueError, TypeError, LookupError, RecursionError):
            _log.exception("expected an answer of the launcher, got %r; it is ignored", line[:200])


def _frame(name: str, content: Mapping[str, Any]) -> bytes:
    data = name.encode() + b"\n" + json.dumps(content).encode()
    return len(data).to_bytes(4, "big") + data


def _is_momentary(error: OSError) -> bool:
    return isinstance(error, BlockingIOError) or processes.is_transient(error.errno)


def _start(log: Path, *inherited: int) -> None:
    """Start the launcher and wait until it has detached itself."""
    environment = {name: value for name, value in os.environ.items() if name != processes.MARK}
    try:
        done = _run(log, environment, *inherited)
    except subprocess.TimeoutExpired as error:
        raise NotStarted(f"it did not detach itself within {_START_SECONDS:g} s", definite=False) from error
    except OSError as error:
        raise NotStarted(str(error), definite=not processes.is_transient(error.errno)) from error
    finally:
        for number in inherited:
            os.close(number)
    if done.returncode != 0:
        definite = done.returncode > 0  # else somebody killed it
        raise NotStarted(f"it ended with {done.returncode}; see {log}", definite=definite)


def _run(log: Path, environment: Mapping[str, str], *inherited: int) -> subprocess.CompletedProcess[bytes]:
    program = Path(__file__).with_name("launcher.py")
    numbers = (*inherited, processes.soft_descriptor_limit())
    with log.open("ab") as output:
        return subprocess.run(
            [sys.executable, "-I", "-S", "-E", str(program), *map(str, numbers)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            pass_fds=inherited,
            start_new_session=True,
            timeout=_START_SECONDS,
            check=False,
        )
