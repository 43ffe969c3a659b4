"""The socket table of Linux: sock_diag(7), and /proc/net/tcp where that is not to be had.

Only a connected socket that a process holds counts. A socket that its process has closed has no owner any
more, and Linux then shows uid 0 and inode 0 (net/ipv4/inet_diag.c, inet_twsk_diag_fill; net/core/sock.c,
sock_i_uid): taken at its word, it would let anybody in to a service of root who closes quickly.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from edbjobs_server.auth.peers import Address, Unsupported

assert sys.platform == "linux"  # for mypy, too

_ESTABLISHED = 1  # TCP states of linux/tcp_states.h; a peer in any other has started to close
_SOCK_DIAG_BY_FAMILY = 20
_NETLINK_SOCK_DIAG = 4
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI")  # family, protocol, extensions; states
_SOCKET_ID = struct.Struct("!HH16s16s")  # ports and addresses, in network order
_ANY_SOCKET = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # any interface, no cookie
_REPLY = struct.Struct("=BBBB")  # family, state, timer, retransmissions
_ID_SIZE = _SOCKET_ID.size + len(_ANY_SOCKET)
_OWNER = struct.Struct("=IIIII")  # expires, receive queue, send queue, uid, inode


class NetlinkSockets:
    """Linux: one exact question to sock_diag(7), some microseconds. Not for several threads at once."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
            self._socket.bind((0, 0))
        except OSError as error:
            raise Unsupported(f"sock_diag: {error}") from error
        # The kernel puts its answer in place before send returns: there is nothing to wait for.
        self._socket.setblocking(False)
        self._sequence = 0
        self._uid = os.geteuid()

    def close(self) -> None:
        """See :class:`PeerSockets`."""
        self._socket.close()

    def all_ours(self, peer: Address, servers: Sequence[Address]) -> bool:
        """See :class:`PeerSockets`."""
        owners = [self.owner(peer, server) for server in servers if _same_family(peer, server)]
        return bool(known := [owner for owner in owners if owner is not None]) and set(known) == {self._uid}

    def owner(self, local: Address, remote: Address) -> int | None:
        """Return the uid of the connected socket with these ends; None: there is none that a process holds."""
        body, ends = _question(local, remote)
        reply = self._ask(body)
        if reply is None:
            return None
        _, state, _, _ = _REPLY.unpack_from(reply)
        found = reply[_REPLY.size : _REPLY.size + _SOCKET_ID.size]
        _, _, _, uid, inode = _OWNER.unpack_from(reply, _REPLY.size + _ID_SIZE)
        # The kernel falls back to a listening socket of the same port: compare both ends.
        if state != _ESTABLISHED or inode == 0 or (found != ends and not _same_ends(found, ends)):
            return None
        return int(uid)

    def _ask(self, body: bytes) -> bytes | None:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        length = _HEADER.size + len(body)
        header = _HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, self._sequence, 0)
        try:
            self._socket.send(header + body)
            while True:
                answer = self._socket.recv(8192)
                _, kind, _, sequence, _ = _HEADER.unpack_from(answer)
                if sequence == self._sequence:
                    break
        except OSError as error:
            raise Unsupported(f"sock_diag: {error}") from error
        if kind == _SOCK_DIAG_BY_FAMILY:
            return answer[_HEADER.size :]
        code = -struct.unpack_from("=i", answer, _HEADER.size)[0] if kind == _NLMSG_ERROR else errno.EPROTO
        if code == errno.ENOENT:
            return None
        raise Unsupported(f"sock_diag: {os.strerror(code)}")


class ProcSockets:
    """Linux without sock_diag: reads /proc/net/tcp and tcp6, some milliseconds with many connections."""

    def __init__(self, root: Path = Path("/proc/net")) -> None:
        self._files = (root / "tcp", root / "tcp6")
        self._uid = os.geteuid()

    def all_ours(self, peer: Address, servers: Sequence[Address]) -> bool:
        """See :class:`PeerSockets`."""
        ends = {(_proc_form(form, peer), _proc_form(form, server)) for server in servers for form in (4, 6)}
        known = {uid for local, remote, uid in self._connected() if (local, remote) in ends}
        return known == {self._uid}

    def close(self) -> None:
        """See :class:`PeerSockets`."""

    def _connected(self) -> Iterator[tuple[str, str, int]]:
        for file in self._files:
            try:
                lines = file.read_text(encoding="ascii").splitlines()[1:]
            except FileNotFoundError:  # no IPv6
                continue
            for line in lines:
                fields = line.split(maxsplit=10)
                if int(fields[3], 16) == _ESTABLISHED and fields[9] != "0":
                    yield fields[1], fields[2], int(fields[7])


def _same_family(one: Address, other: Address) -> bool:
    return (":" in one[0]) == (":" in other[0])


@lru_cache(1024)
def _question(local: Address, remote: Address) -> tuple[bytes, bytes]:
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    ends = _SOCKET_ID.pack(local[1], remote[1], _packed(local[0]), _packed(remote[0]))
    return _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 1 << _ESTABLISHED) + ends + _ANY_SOCKET, ends


def _packed(host: str) -> bytes:
    return ipaddress.ip_address(host).packed.ljust(16, b"\0")


def _same_ends(found: bytes, asked: bytes) -> bool:
    def unmapped(ends: bytes) -> tuple[int, int, bytes, bytes]:
        sport, dport, src, dst = _SOCKET_ID.unpack(ends)
        return sport, dport, _unmap(src), _unmap(dst)

    return unmapped(found) == unmapped(asked)


def _unmap(packed: bytes) -> bytes:
    return packed[12:].ljust(16, b"\0") if packed[:12] == b"\0" * 10 + b"\xff\xff" else packed


def _proc_form(version: int, address: Address) -> str:
    """Write an address as /proc/net/tcp or tcp6 does: words of four bytes, each in the host's byte order."""
    host, port = address
    packed = ipaddress.ip_address(host).packed
    if version == 6 and len(packed) == 4:
        packed = b"\0" * 10 + b"\xff\xff" + packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
