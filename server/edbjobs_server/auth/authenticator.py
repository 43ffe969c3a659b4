"""Who gets in: the service's own account by socket, everybody else by token or certificate."""

from __future__ import annotations

import errno
import getpass
import hmac
import ipaddress
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

from edbjobs_server.auth.peers import Address, PeerSockets, Unsupported, open_peer_sockets
from edbjobs_server.config.settings import SettingsError
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.principal import Authentication, Principal, Role

Metadata = Iterable[tuple[str, str | bytes]]

TOKEN_FILE = "token"  # noqa: S105 (a file's name)


def account_name() -> str:
    """Name of the account the service runs as."""
    if sys.platform == "win32":
        return getpass.getuser()
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # no name for it, as in many containers
        return f"uid {os.geteuid()}"


class Authenticator:
    """Identifies a peer, or refuses it.

    Parameters
    ----------
    token : str
        The service's token.
    listening : sequence of (str, int)
        TCP addresses and ports the service is bound to. A peer without token is looked up only for those that
        are loopback addresses: on a wildcard address the same peer port may belong to two sockets.
    mtls : bool, default False
        Peers have shown a certificate.
    sockets : PeerSockets or None, optional
        How the owner of a socket is found; default: what this system has. None: token for every TCP peer.

    Attributes
    ----------
    account : str
        The service's account, as which its token acts.
    """

    def __init__(
        self,
        token: str,
        listening: Sequence[Address] = (),
        *,
        mtls: bool = False,
        sockets: PeerSockets | None = None,
    ) -> None:
        self._token = token.encode()
        self.mtls = mtls
        self._sockets = sockets
        self.account = account_name()
        self._listening: tuple[Address, ...] = ()
        self.listen(listening)

    def listen(self, addresses: Sequence[Address]) -> None:
        """Set the addresses the service is bound to, once the ports are known."""
        self._listening = tuple((host, port) for host, port in addresses if _is_loopback(host))

    def close(self) -> None:
        """Let the look-up of peers go."""
        if self._sockets is not None:
            self._sockets.close()

    def identify(self, peer: str, metadata: Metadata, auth: Mapping[str, Iterable[bytes]] | None = None) -> Principal:
        """Return the caller.

        Parameters
        ----------
        peer : str
            As gRPC writes it: ``unix:``, ``ipv4:127.0.0.1:43210`` or ``ipv6:%5B::1%5D:43210``.
        metadata : iterable of (str, str or bytes)
            Of the call; only ``authorization`` counts.
        auth : mapping, optional
            Of the connection, for mutual TLS.

        Raises
        ------
        Refused
            UNAUTHENTICATED. A wrong token is refused wherever it comes from.
        """
        given = [value for key, value in metadata if key == "authorization"]
        if given:
            return self._by_token(peer, given)
        if peer.startswith("unix:"):
            return _admin(self.account, Authentication.UNIX_SOCKET)  # the file's mode lets this account in only
        if self.mtls:
            return self._by_certificate(peer, auth or {})
        return self._by_socket(peer)

    def by_session(self, peer: str) -> Principal:
        """Return the caller of a session that was started with the token."""
        return _admin(self.account, Authentication.TOKEN, peer)

    def _by_token(self, peer: str, given: list[str | bytes]) -> Principal:
        raw = given[0] if isinstance(given[0], bytes) else given[0].encode()
        scheme, _, token = raw.partition(b" ")
        right = hmac.compare_digest(token.strip(), self._token)
        if len(given) > 1 or scheme.lower() != b"bearer" or not right:
            raise Refused(
                "UNAUTHENTICATED",
                "the token is not this service's; take it from the file `token` in its state folder, "
                "or send none from its own account on this host",
            )
        return _admin(self.account, Authentication.TOKEN, peer)

    def _by_certificate(self, peer: str, auth: Mapping[str, Iterable[bytes]]) -> Principal:
        name = next(iter(auth.get("x509_common_name", ())), b"")
        if name:  # gRPC gives an empty one where the certificate has none
            return _admin(name.decode(errors="replace"), Authentication.CERTIFICATE, peer)
        raise Refused("UNAUTHENTICATED", "a client certificate with a common name is needed")

    def _by_socket(self, peer: str) -> Principal:
        address = parse_peer(peer)
        if address is None or not _is_loopback(address[0]):
            raise _token_needed("this connection comes from another host")
        if self._sockets is None or not self._listening:
            raise _token_needed("the account of a local peer cannot be determined here")
        try:
            ours = self._sockets.all_ours(address, self._listening)
        except (Unsupported, OSError) as error:
            raise _token_needed(f"the account of a local peer cannot be determined now ({error})") from error
        if not ours:
            raise _token_needed("this connection belongs to another account")
        return _admin(self.account, Authentication.LOOPBACK, peer)


def _admin(name: str, authentication: Authentication, peer: str = "") -> Principal:
    """Return a principal: everybody who can identify themselves is an administrator."""
    address = "" if peer.startswith("unix:") else unquote(peer)
    return Principal(name, Role.ADMIN, authentication, address)


def _token_needed(why: str) -> Refused:
    return Refused(
        "UNAUTHENTICATED",
        f"{why}: send `authorization: Bearer TOKEN` (EDBJOBS_TOKEN for our clients); "
        "the token stands in the file `token` in the service's state folder",
    )


def make_authenticator(state_dir: Path, listening: Sequence[Address] = (), *, mtls: bool = False) -> Authenticator:
    """Build the authenticator of a service, with its token and this system's lookup of socket owners."""
    token = load_token(state_dir / TOKEN_FILE)
    return Authenticator(token, listening, mtls=mtls, sockets=open_peer_sockets())


@lru_cache(1024)
def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback


@lru_cache(1024)
def parse_peer(peer: str) -> Address | None:
    """Return address and port of a TCP peer as gRPC writes it; an IPv4 address within IPv6 is IPv4."""
    kind, _, rest = peer.partition(":")
    host, _, port = unquote(rest).rpartition(":")
    if kind not in ("ipv4", "ipv6") or not (port.isascii() and port.isdigit()):
        return None
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address), int(port)


def load_token(file: Path) -> str:
    """Read the token, or make it at the first start.

    Raises
    ------
    SettingsError
        The file belongs to somebody else, others may read it, or it is not a plain file.
    """
    try:
        # NONBLOCK: a pipe in its place must not hold the start.
        flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(file, os.O_RDONLY | flags)
    except FileNotFoundError:
        return _make_token(file)
    except OSError as error:
        what = "is a link" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
        raise SettingsError(f"token file {file} {what}; remove it and start again") from error
    try:
        _check_private(file, os.fstat(descriptor))
        token = os.read(descriptor, 4096).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)
    if len(token) < 32:
        raise SettingsError(f"token file {file} holds no whole token; remove it and start again")
    return token


def _check_private(file: Path, found: os.stat_result) -> None:
    if sys.platform == "win32":
        return
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise SettingsError(f"token file {file} is not a file of this account; remove it and start again")
    if found.st_mode & 0o077:
        raise SettingsError(
            f"token file {file} can be read by others (mode {stat.S_IMODE(found.st_mode):04o}), "
            "so they may know the token; remove it and start again"
        )


def _make_token(file: Path) -> str:
    # Written beside and renamed: a crash leaves no half token. O_EXCL takes no file that is there already.
    token = secrets.token_urlsafe(32)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as stream:
            stream.write(token + "\n")
            stream.flush()
            os.fsync(descriptor)
        os.replace(draft, file)
    except OSError as error:
        raise SettingsError(f"token file {file} cannot be written: {error.strerror or error}") from error
    return token
