"""Who gets in, attacked: a service of our account, and a relay that runs under another one.

The relay gives a client's connection the other account's socket, with the source port and the moment of closing
that the attack needs.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from edbjobs_server.auth.authenticator import Authenticator, load_token
from edbjobs_server.auth.peers import open_peer_sockets
from edbjobs_server.auth.peers.linux import NetlinkSockets, ProcSockets
from edbjobs_server.rpc.interceptors import CallInterceptor, current_principal

NOBODY = 65534
METHOD = "/test.Test/ChangeIt"

# Runs as root, takes on the account, then executes one request per line.
FOREIGN = """
import json, os, socket, struct, sys, threading, time
uid = int(sys.argv[1])
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
held = []

def connect(port, source=0, host="127.0.0.1"):
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((host, source))
    made.connect((host, port))
    held.append(made)
    return made

def pump(one, other):
    try:
        while data := one.recv(65536):
            other.sendall(data)
    except OSError:
        pass

def relay(port, source=0, host="127.0.0.1"):
    listener = socket.create_server(("127.0.0.1", 0))
    def serve():
        near, _ = listener.accept()
        far = connect(port, source, host)
        # The end of this process resets the connection: its port is free at once.
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        threading.Thread(target=pump, args=(near, far), daemon=True).start()
        threading.Thread(target=pump, args=(far, near), daemon=True).start()
    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]

def hold(port, source=0):
    return connect(port, source).getsockname()[1]

def hit(port, data, times):
    for number in range(times):
        made = connect(port)
        made.sendall(bytes.fromhex(data))
        time.sleep(number % 20 * 1e-4)  # around the moment in which the service looks
        held.remove(made)
        made.close()
    return times

def unix(path):
    made = socket.socket(socket.AF_UNIX)
    try:
        made.connect(path)
        return "connected"
    except OSError as error:
        return type(error).__name__
    finally:
        made.close()

def read(path):
    try:
        return open(path).read()
    except OSError as error:
        return type(error).__name__

for line in sys.stdin:
    name, *arguments = json.loads(line)
    print(json.dumps(globals()[name](*arguments)), flush=True)
"""


class Foreign:
    """A process of another account."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, *what: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@pytest.fixture
def foreign() -> Iterator[Foreign]:
    if os.name != "posix" or os.geteuid() != 0:
        if os.environ.get("EDBJOBS_CI") == "1":
            pytest.fail("another account can be taken on by root only, and here nothing may be skipped")
        pytest.skip("needs root, to take on another account")
    with running(NOBODY) as process:
        yield process


@contextmanager
def running(uid: int) -> Iterator[Foreign]:
    process = subprocess.Popen(
        [sys.executable, "-c", FOREIGN, str(uid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield Foreign(process)
        finally:
            process.kill()


class Service:
    """Answers with the caller's way in; counts the calls it was reached by."""

    def __init__(self, token: str) -> None:
        self.port, self.token, self.reached = 0, token, 0
        self.refused = 0

    def __getattr__(self, level: str) -> Any:
        """Be the log of the interceptor too: count the calls that were refused."""

        def write(event: str, *, code: str, **values: Any) -> None:
            self.refused += code == "UNAUTHENTICATED"

        return write

    async def answer(self, request: bytes, context: Any) -> bytes:
        self.reached += 1
        return current_principal().authentication.name.encode()

    async def call(self, port: int | None = None, host: str = "127.0.0.1", token: str = "", **more: str) -> str:
        """Call, each time on a connection of its own; returns the way in, or the code's name."""
        metadata = [(name.replace("_", "-"), value) for name, value in more.items()]
        if token:
            metadata.append(("authorization", f"Bearer {token}"))
        target = f"[{host}]:{port or self.port}" if ":" in host else f"{host}:{port or self.port}"
        return await call(target, metadata)


async def call(target: str, metadata: list[tuple[str, str]] | None = None, **options: Any) -> str:
    local = [("grpc.use_local_subchannel_pool", 1)]
    credentials = options.get("credentials")
    if credentials is None:
        channel = grpc.aio.insecure_channel(target, options=local)
    else:
        channel = grpc.aio.secure_channel(target, credentials, options=local)
    async with channel:
        unary: Any = channel.unary_unary(METHOD)
        try:
            answer: bytes = await unary(b"", metadata=metadata, timeout=20)
            return answer.decode()
        except grpc.aio.AioRpcError as error:
            return error.code().name


@asynccontextmanager
async def serving(
    folder: Path,
    address: str = "127.0.0.1",
    *,
    uds: str = "",
    credentials: grpc.ServerCredentials | None = None,
    table: Any = None,
) -> AsyncIterator[Service]:
    token = load_token(folder / "token")
    access = Authenticator(token, mtls=credentials is not None, sockets=table or open_peer_sockets())
    service = Service(token)
    server = grpc.aio.server(interceptors=[CallInterceptor(access, service)])
    where = f"[{address}]:0" if ":" in address else f"{address}:0"
    port = server.add_secure_port(where, credentials) if credentials else server.add_insecure_port(where)
    service.port = port
    handlers: dict[str, Any] = {"ChangeIt": grpc.unary_unary_rpc_method_handler(service.answer)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Test", handlers)])
    if uds:
        before = os.umask(0o177)
        server.add_insecure_port(f"unix:{uds}")
        os.umask(before)
    access.listen([(address, port)])
    await server.start()
    try:
        yield service
    finally:
        await server.stop(None)
        access.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_our_own_account_needs_no_token_on_loopback(tmp_path: Path, host: str) -> None:
    async with serving(tmp_path, host) as service:
        assert await service.call(host=host) == "LOOPBACK"
        assert await service.call(host=host, token=service.token) == "TOKEN"
        assert await service.call(host=host, token="x" * 43) == "UNAUTHENTICATED"


async def test_on_a_wildcard_address_everybody_needs_the_token(tmp_path: Path) -> None:
    async with serving(tmp_path, "0.0.0.0") as service:
        assert await service.call() == "UNAUTHENTICATED"
        assert await service.call(token=service.token) == "TOKEN"


async def test_a_connection_is_looked_up_through_proc_too(tmp_path: Path) -> None:
    async with serving(tmp_path, table=ProcSockets()) as service:
        assert await service.call() == "LOOPBACK"


@pytest.mark.needs_root
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("table", [NetlinkSockets, ProcSockets])
async def test_another_account_needs_the_token(tmp_path: Path, foreign: Foreign, host: str, table: Any) -> None:
    async with serving(tmp_path, host, table=table()) as service:
        for metadata in (
            {},
            {"token": "x" * 43},
            {"x_forwarded_for": "127.0.0.1"},
            {"forwarded": "for=unix"},
            {"peer": "unix:"},
            {"principal": "root"},
        ):
            port = foreign.do("relay", service.port, 0, host)
            assert await service.call(port, **metadata) == "UNAUTHENTICATED"
        assert service.reached == 0
        port = foreign.do("relay", service.port, 0, host)
        assert await service.call(port, token=service.token) == "TOKEN"


@pytest.mark.needs_root
async def test_a_port_that_was_ours_is_looked_up_again(tmp_path: Path, foreign: Foreign) -> None:
    source = free_port()
    async with serving(tmp_path) as service:
        with running(os.geteuid()) as ours:
            assert await service.call(ours.do("relay", service.port, source)) == "LOOPBACK"
        assert await service.call(foreign.do("relay", service.port, source)) == "UNAUTHENTICATED"


@pytest.mark.needs_root
async def test_a_port_shared_with_a_connection_of_ours_does_not_let_in(tmp_path: Path, foreign: Foreign) -> None:
    """One source port, two services: what one account's connection is said to be, the other's is not."""
    with running(os.geteuid()) as ours, socket.create_server(("127.0.0.1", 0)) as other:
        async with serving(tmp_path) as service:
            elsewhere = other.getsockname()
            source = ours.do("hold", elsewhere[1])
            assert await service.call(foreign.do("relay", service.port, source)) == "UNAUTHENTICATED"
            table, peer = NetlinkSockets(), ("127.0.0.1", source)
            assert table.all_ours(peer, [elsewhere])
            assert not table.all_ours(peer, [elsewhere, ("127.0.0.1", service.port)])
            table.close()


@pytest.mark.needs_root
async def test_who_closes_at_once_is_not_taken_for_root(tmp_path: Path, foreign: Foreign) -> None:
    async with serving(tmp_path) as service:
        request = await recorded(service)
        assert await service.call() == "LOOPBACK"
        service.reached = 0
        await asyncio.to_thread(foreign.do, "hit", service.port, request.hex(), 200)
        # Requests are served in order of arrival: when this one is answered, those before it have been judged.
        assert await service.call() == "LOOPBACK"
        assert service.reached == 1
        assert service.refused > 0


@pytest.mark.needs_root
async def test_the_unix_socket_and_the_token_are_closed_to_others(tmp_path: Path, foreign: Foreign) -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)  # even where the folder lets others in
        path = f"{name}/edbjobs.sock"
        async with serving(Path(name), uds=path):
            assert await call(f"unix:{path}") == "UNIX_SOCKET"
            assert await asyncio.to_thread(foreign.do, "unix", path) == "PermissionError"
            assert await asyncio.to_thread(foreign.do, "read", f"{name}/token") == "PermissionError"


async def test_a_wrong_token_is_refused_on_the_unix_socket_too(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = f"{name}/edbjobs.sock"
        async with serving(tmp_path, uds=path):
            assert await call(f"unix:{path}", [("authorization", "Bearer x")]) == "UNAUTHENTICATED"


async def test_mutual_tls_lets_in_who_has_a_certificate_of_ours(tmp_path: Path) -> None:
    ours, theirs = trustme.CA(), trustme.CA()

    def chain(cert: trustme.LeafCert) -> tuple[bytes, bytes]:
        return cert.private_key_pem.bytes(), b"".join(pem.bytes() for pem in cert.cert_chain_pems)

    root = ours.cert_pem.bytes()
    credentials = grpc.ssl_server_credentials([chain(ours.issue_cert("127.0.0.1"))], root, True)
    async with serving(tmp_path, credentials=credentials) as service:
        target = f"127.0.0.1:{service.port}"

        async def by(key: bytes | None, cert: bytes | None) -> str:
            return await call(target, credentials=grpc.ssl_channel_credentials(root, key, cert))

        assert await by(*chain(ours.issue_cert(common_name="alice"))) == "CERTIFICATE"
        assert await by(*chain(ours.issue_cert("nameless.example"))) == "UNAUTHENTICATED"
        assert await by(*chain(theirs.issue_cert(common_name="alice"))) == "UNAVAILABLE"
        assert await by(None, None) == "UNAVAILABLE"
        assert await call(target) == "UNAVAILABLE"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def recorded(service: Service) -> bytes:
    """Record what a client sends for one call."""
    sent = bytearray()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", service.port)

        async def pump(source: asyncio.StreamReader, to: asyncio.StreamWriter, keep: bytearray | None) -> None:
            while data := await source.read(65536):
                if keep is not None:
                    keep += data
                to.write(data)
                await to.drain()
            to.close()

        await asyncio.gather(pump(reader, far_writer, sent), pump(far_reader, writer, None))

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with server:
        assert await service.call(server.sockets[0].getsockname()[1]) == "LOOPBACK"
    assert b"ChangeIt" in sent
    return bytes(sent)
