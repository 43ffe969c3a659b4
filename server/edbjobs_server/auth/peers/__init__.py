"""Owner of the socket at the other end of a local TCP connection, by the system's socket table."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

Address = tuple[str, int]


class PeerSockets(Protocol):
    """Checks whether a peer's socket belongs to the account of this process."""

    def all_ours(self, peer: Address, servers: Sequence[Address]) -> bool:
        """Return whether there is a socket from `peer` to one of `servers`, and all such are this account's."""

    def close(self) -> None:
        """Let go of what the questions are asked through."""


class Unsupported(Exception):
    """Raised where the system does not provide the owner of a socket."""


class PsutilSockets:
    """Windows: the owner of a socket is the account of the process that holds it (GetExtendedTcpTable)."""

    def __init__(self) -> None:
        import psutil

        self._psutil = psutil
        self._account = psutil.Process().username()

    def all_ours(self, peer: Address, servers: Sequence[Address]) -> bool:
        """See :class:`PeerSockets`."""
        try:
            connections = self._psutil.net_connections(kind="tcp")
        except self._psutil.Error as error:
            raise Unsupported(f"socket table: {error}") from error
        pids = {
            found.pid
            for found in connections
            if found.status == self._psutil.CONN_ESTABLISHED
            and tuple(found.laddr) == peer
            and tuple(found.raddr) in servers
        }
        return bool(pids) and all(pid is not None and self._owner(pid) == self._account for pid in pids)

    def close(self) -> None:
        """See :class:`PeerSockets`."""

    def _owner(self, pid: int) -> str | None:
        try:
            return self._psutil.Process(pid).username()
        except self._psutil.Error:  # gone, or of an account we may not look at
            return None


def open_peer_sockets() -> PeerSockets | None:
    """Choose what works here, tried on a connection of our own; None: nothing does."""
    makers: tuple[Callable[[], PeerSockets], ...] = (PsutilSockets,)
    if sys.platform == "linux":
        from edbjobs_server.auth.peers.linux import NetlinkSockets, ProcSockets

        makers = (NetlinkSockets, ProcSockets)
    return next((sockets for make in makers if (sockets := _tried(make)) is not None), None)


def _tried(make: Callable[[], PeerSockets]) -> PeerSockets | None:
    try:
        sockets = make()
    except (Unsupported, OSError):
        return None
    try:
        if _finds_itself(sockets):
            return sockets
    except (Unsupported, OSError, ValueError):
        pass  # as good as not found
    sockets.close()
    return None


def _finds_itself(sockets: PeerSockets) -> bool:
    # Where the kernel has no tcp_diag it answers "no such socket" to every request: only a trial shows it.
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address, timeout=5) as client:
            return sockets.all_ours(client.getsockname(), [address])
