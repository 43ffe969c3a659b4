from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edbjobs_server.auth.authenticator import Authenticator, account_name, load_token, parse_peer
from edbjobs_server.auth.peers import Address, PeerSockets, PsutilSockets, Unsupported, open_peer_sockets
from edbjobs_server.auth.peers import linux as module
from edbjobs_server.auth.peers.linux import NetlinkSockets, ProcSockets
from edbjobs_server.config.settings import SettingsError
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.principal import Authentication, Role

TOKEN = "A" * 43
RIGHT = [("authorization", f"Bearer {TOKEN}")]
LOCAL = "ipv4:127.0.0.1:4000"
linux = pytest.mark.skipif(sys.platform != "linux", reason="sock_diag and /proc are Linux's")


class Table:
    """A socket table that answers as it is told."""

    def __init__(self, answer: bool | Exception) -> None:
        self.answer = answer
        self.asked: list[tuple[Address, tuple[Address, ...]]] = []

    def all_ours(self, peer: Address, servers: object) -> bool:
        self.asked.append((peer, tuple(servers)))  # type: ignore[arg-type]
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.asked.clear()


def access(answer: bool | Exception = True, listening: str = "127.0.0.1", *, mtls: bool = False) -> Authenticator:
    return Authenticator(TOKEN, [(listening, 18080)], mtls=mtls, sockets=Table(answer))


def refusal(found: Authenticator, peer: str, metadata: object = ()) -> str:
    with pytest.raises(Refused) as caught:
        found.identify(peer, metadata)  # type: ignore[arg-type]
    assert caught.value.reason == "UNAUTHENTICATED"
    return caught.value.message


@pytest.mark.parametrize(
    ("peer", "wanted"),
    [
        ("ipv4:127.0.0.1:43210", ("127.0.0.1", 43210)),
        ("ipv6:%5B::1%5D:43210", ("::1", 43210)),
        ("ipv6:[::1]:43210", ("::1", 43210)),
        ("ipv6:%5B::ffff:127.0.0.1%5D:1", ("127.0.0.1", 1)),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", ("fe80::1%eth0", 1)),
        ("unix:", None),
        ("unix-abstract:x", None),
        ("ipv4:127.0.0.1", None),
        ("ipv4:localhost:1", None),
        ("ipv4:127.0.0.1:x", None),
        ("", None),
    ],
)
def test_peers_as_grpc_writes_them(peer: str, wanted: Address | None) -> None:
    assert parse_peer(peer) == wanted


def test_principals() -> None:
    here = access()
    uds, loopback, token = here.identify("unix:", ()), here.identify(LOCAL, ()), here.identify(LOCAL, RIGHT)
    assert [who.authentication for who in (uds, loopback, token)] == [
        Authentication.UNIX_SOCKET,
        Authentication.LOOPBACK,
        Authentication.TOKEN,
    ]
    assert {who.name for who in (uds, loopback, token)} == {account_name()}
    assert {who.role for who in (uds, loopback, token)} == {Role.ADMIN}
    assert {who.user for who in (uds, loopback, token)} == {account_name()}
    assert (uds.address, token.address) == ("", LOCAL)
    far = here.identify("ipv6:%5B2001:db8::1%5D:9", RIGHT)
    assert far.address == "ipv6:[2001:db8::1]:9"


@pytest.mark.parametrize(
    ("peer", "why"),
    [
        ("ipv4:10.1.2.3:4000", "another host"),
        ("ipv6:%5B2001:db8::1%5D:4000", "another host"),
        ("unix-abstract:edbjobs", "another host"),
        ("", "another host"),
    ],
)
def test_who_is_not_local_needs_the_token(peer: str, why: str) -> None:
    assert why in refusal(access(), peer)
    assert access().identify(peer, RIGHT).authentication is Authentication.TOKEN


def test_a_foreign_or_unknown_local_peer_needs_the_token() -> None:
    assert "another account" in refusal(access(False), LOCAL)
    assert "cannot be determined now (no netlink)" in refusal(access(Unsupported("no netlink")), LOCAL)
    assert "cannot be determined here" in refusal(Authenticator(TOKEN, [("127.0.0.1", 1)]), LOCAL)
    assert access(False).identify(LOCAL, RIGHT).authentication is Authentication.TOKEN


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::", "192.0.2.1"])
def test_beyond_loopback_addresses_nobody_is_looked_up(wildcard: str) -> None:
    assert "cannot be determined here" in refusal(access(True, wildcard), LOCAL)


@pytest.mark.parametrize("peer", [LOCAL, "unix:", "ipv4:10.1.2.3:1"])
@pytest.mark.parametrize(
    "given",
    [
        [("authorization", "Bearer " + "B" * 43)],
        [("authorization", f"Bearer {TOKEN}x")],
        [("authorization", f"Bearer {TOKEN[:-1]}")],
        [("authorization", "Bearer")],
        [("authorization", "")],
        [("authorization", TOKEN)],
        [("authorization", f"Basic {TOKEN}")],
        [("authorization", "Bearer ü")],
        [("authorization", b"\xff\xfe")],
        [*RIGHT, ("authorization", "Bearer other")],
        [("authorization", "Bearer other"), *RIGHT],
    ],
)
def test_a_wrong_token_is_refused_wherever_it_comes_from(peer: str, given: list[tuple[str, str]]) -> None:
    message = refusal(access(), peer, given)
    assert "not this service's" in message
    assert TOKEN not in message


@pytest.mark.parametrize("key", ["x-forwarded-for", "peer", "x-real-ip", "principal", "token", "cookie"])
def test_other_metadata_says_nothing(key: str) -> None:
    assert "another account" in refusal(access(False), LOCAL, [(key, f"Bearer {TOKEN}"), (key, "unix:")])


def test_a_certificate_names_its_holder() -> None:
    here = access(mtls=True)
    who = here.identify("ipv4:10.1.2.3:1", (), {"x509_common_name": [b"alice"]})
    assert (who.name, who.user, who.authentication) == ("alice", "alice", Authentication.CERTIFICATE)
    assert "certificate" in refusal(here, LOCAL)


def test_closing_lets_the_table_go() -> None:
    table = Table(True)
    here = Authenticator(TOKEN, [("127.0.0.1", 1)], sockets=table)
    here.identify(LOCAL, ())
    here.close()
    assert table.asked == []
    Authenticator(TOKEN).close()


# The token's file ----------------------------------------------------------------------------------------


def test_a_token_is_made_once_for_this_account_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        token = load_token(tmp_path / "token")
    finally:
        os.umask(before)
    assert len(token) >= 43
    assert load_token(tmp_path / "token") == token
    assert [file.name for file in tmp_path.iterdir()] == ["token"]
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert load_token(tmp_path.joinpath("other")) != token


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_token_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    load_token(tmp_path / "token")
    (tmp_path / "token").chmod(mode)
    with pytest.raises(SettingsError, match=f"can be read by others .mode {mode:04o}."):
        load_token(tmp_path / "token")


def test_a_token_file_must_be_a_plain_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "target"
    load_token(target)
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(SettingsError, match="is a link"):
        load_token(tmp_path / "link")
    (tmp_path / "short").write_text("abc")
    (tmp_path / "short").chmod(0o600)
    with pytest.raises(SettingsError, match="no whole token"):
        load_token(tmp_path / "short")
    (tmp_path / "folder").mkdir(0o700)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("folder", "pipe"):
        with pytest.raises(SettingsError, match="is not a file of this account"):
            load_token(tmp_path / name)
    with pytest.raises(SettingsError, match="cannot be written"):
        load_token(tmp_path / "nowhere" / "token")


# Socket tables -------------------------------------------------------------------------------------------


@pytest.fixture(params=[NetlinkSockets, ProcSockets, PsutilSockets])
def table(request: pytest.FixtureRequest) -> Iterator[PeerSockets]:
    if sys.platform != "linux" and request.param is not PsutilSockets:
        pytest.skip("sock_diag and /proc are Linux's")
    made: PeerSockets = request.param()
    yield made
    made.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_of_our_own_is_ours_until_it_closes(table: PeerSockets, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        address = server.getsockname()[:2]
        client = socket.create_connection(address)
        peer = client.getsockname()[:2]
        assert table.all_ours(peer, [address])
        assert table.all_ours(peer, [address, (host, 1)])
        assert not table.all_ours(peer, [(host, 1)])
        assert not table.all_ours(peer, [])
        assert not table.all_ours((host, 1), [address])
        assert not table.all_ours(address, [address])  # a listening socket is no peer
        client.sendall(b"request")
        client.close()
        # The kernel shows uid 0 for it now: to a service of root that would be its own account.
        assert not table.all_ours(peer, [address])


@linux
@pytest.mark.parametrize("make", [NetlinkSockets, ProcSockets])
def test_an_ipv4_connection_over_ipv6_sockets_is_found(make: Callable[[], PeerSockets]) -> None:
    found = make()
    with socket.socket(socket.AF_INET6) as server, socket.socket(socket.AF_INET6) as client:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::ffff:127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        client.connect(("::ffff:127.0.0.1", port))
        assert found.all_ours(("127.0.0.1", client.getsockname()[1]), [("127.0.0.1", port)])
    found.close()


@linux
def test_without_sock_diag_proc_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NETLINK_SOCK_DIAG", 31)  # a family no kernel has
    found = open_peer_sockets()
    assert isinstance(found, ProcSockets)


@linux
def test_a_table_that_does_not_find_ourselves_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(NetlinkSockets, "_ask", lambda self, body: None)  # as where there is no tcp_diag
    (tmp_path / "tcp").write_text("  sl  local_address rem_address   st\n")
    monkeypatch.setattr(ProcSockets, "_connected", lambda self: iter(()))
    assert open_peer_sockets() is None


@linux
def test_the_best_table_is_chosen() -> None:
    found = open_peer_sockets()
    assert isinstance(found, NetlinkSockets)
    found.close()
