"""The service's side of the launcher: starts it, sends requests, receives answers."""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edbjobs_server.executors.local import processes
from edbjobs_server.within import within

assert sys.platform != "win32"

_START_SECONDS = 60.0  # a cold interpreter on a slow disk
_UNSENT = 1 << 20  # bytes waiting for the launcher above which senders wait, too
_PIDFDS = 64  # taken from the socket at once


class LauncherGone(Exception):
    """The launcher ended before it answered: whether the run was begun is for its record to tell."""


class Channel:
    """The connection to one launcher; made by `open`."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = ours
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()
        self._drained = asyncio.Event()
        self._received = bytearray()
        self._pidfds: deque[int] = deque()
        self._waiting: dict[str, asyncio.Future[int]] = {}
        self.gone = False
        self.pid = 0  # of the launcher
        self._ready: asyncio.Future[int] = self._loop.create_future()
        ours.setblocking(False)
        self._loop.add_reader(ours, self._receive)

    @classmethod
    async def open(cls, log: Path, notify: int) -> Channel:
        """Start a launcher.

        Parameters
        ----------
        log : Path
            File for what the launcher and the supervisors have to say in case of trouble.
        notify : int
            Write end of the pipe on which supervisors tell news.

        Raises
        ------
        OSError
            If it cannot be started.
        """
        ours, theirs = socket.socketpair()
        try:
            # The thread owns what it is given: it goes on if this task is cancelled.
            await asyncio.to_thread(_start, log, theirs.detach(), os.dup(notify))
        except BaseException:
            ours.close()
            raise
        channel = cls(ours)
        try:
            channel.pid = await within(channel._ready, _START_SECONDS)
        except (LauncherGone, asyncio.TimeoutError) as error:
            channel.close()
            raise OSError(f"the launcher of local runs could not be started; {log} tells why") from error
        except BaseException:
            channel.close()
            raise
        return channel

    async def request(self, request: Mapping[str, Any]) -> int:
        """Ask for a supervisor.

        Returns
        -------
        int
            Its pidfd, the caller's to close.

        Raises
        ------
        LauncherGone
            If the launcher ended before it answered.
        OSError
            If the supervisor could not be forked.
        """
        if self.gone:
            raise LauncherGone
        answer: asyncio.Future[int] = self._loop.create_future()
        self._waiting[request["name"]] = answer
        data = json.dumps(request).encode()
        self._send(len(data).to_bytes(4, "big") + data)
        while len(self._unsent) > _UNSENT:
            self._drained.clear()
            await self._drained.wait()
        return await answer

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
        while self._pidfds:
            os.close(self._pidfds.popleft())
        for answer in (self._ready, *self._waiting.values()):
            if not answer.done():
                answer.set_exception(LauncherGone())
        self._waiting.clear()

    def _send(self, data: bytes) -> None:
        if not self._unsent:
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                pass
            except OSError:
                self.close()
                return
            if data:
                self._loop.add_writer(self._socket, self._send_more)
        self._unsent += data

    def _send_more(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not self._unsent:
            self._loop.remove_writer(self._socket)
            self._drained.set()

    def _receive(self) -> None:
        space = socket.CMSG_SPACE(_PIDFDS * array.array("i").itemsize)
        try:
            data, ancillary, _, _ = self._socket.recvmsg(1 << 16, space)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._pidfds.extend(array.array("i", payload))
        if not data:
            self.close()
            return
        *lines, rest = (self._received + data).split(b"\n")
        self._received = bytearray(rest)
        for line in lines:
            self._understand(json.loads(line))

    def _understand(self, answer: Mapping[str, Any]) -> None:
        if "launcher" in answer:
            self._ready.set_result(answer["launcher"])
            return
        waiting = self._waiting.pop(answer["name"])
        if "error" in answer:
            if not waiting.done():
                waiting.set_exception(OSError(answer["error"]))
            return
        pidfd = self._pidfds.popleft()
        os.set_inheritable(pidfd, False)
        if waiting.done():  # whoever asked has been cancelled
            os.close(pidfd)
        else:
            waiting.set_result(pidfd)


def _start(log: Path, channel: int, notify: int) -> None:
    """Start the launcher and wait until it has detached itself."""
    program = Path(__file__).with_name("launcher.py")
    environment = {name: value for name, value in os.environ.items() if name != processes.MARK}
    try:
        done = _run(program, log, environment, channel, notify)
    finally:
        os.close(channel)
        os.close(notify)
    if done.returncode != 0:
        raise OSError(f"the launcher of local runs could not be started; {log} tells why")


def _run(
    program: Path, log: Path, environment: Mapping[str, str], *inherited: int
) -> subprocess.CompletedProcess[bytes]:
    with log.open("ab") as output:
        return subprocess.run(
            [sys.executable, "-I", "-S", "-E", str(program), *map(str, inherited)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            pass_fds=inherited,
            start_new_session=True,
            timeout=_START_SECONDS,
            check=False,
        )
