"""Authentication of HTTP requests, and protection against requests of foreign web pages.

A browser runs under the account of the service's user. The rule that this account needs no token would therefore
admit every page that the browser shows. Three checks come first: the Host header must be a name of this host
(against DNS rebinding), the request must not come from a page of another origin, and a body must be JSON, which no
form can send.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import socket
import time
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, urlsplit
from weakref import WeakKeyDictionary

from aiohttp import hdrs, web

from edbjobs_server.auth.authenticator import Authenticator
from edbjobs_server.config.settings import Settings
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.principal import Principal

CALLER = web.RequestKey("caller", Principal)
REFUSAL = web.RequestKey("refusal", Refused)
SESSION_SECONDS = 7 * 86400
# A request with one of these headers came through a proxy: its socket does not identify the sender.
_PROXIED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")


class Peer(NamedTuple):
    """Address of the sender of a request, and whether the request came through a proxy."""

    host: str
    port: int
    proxied: bool

    @property
    def label(self) -> str:
        """The address as gRPC formats it, which is what `Authenticator` reads."""
        if ":" in self.host:
            return f"ipv6:{quote(f'[{self.host}]', safe='')}:{self.port}"
        return f"ipv4:{self.host}:{self.port}"


PEER = web.RequestKey("peer", Peer)


class Guard:
    """Authenticates requests, or refuses them.

    Parameters
    ----------
    access : Authenticator
        The authenticator of this endpoint.
    token : str
        The service's token, from which sessions are made.
    settings : Settings
        Host names, proxies and public URL.
    address : (str, int)
        Address and port that this endpoint is bound to.
    """

    def __init__(self, access: Authenticator, token: str, settings: Settings, address: tuple[str, int]) -> None:
        self._access = access
        self._key = hashlib.sha256(b"edbjobs session " + token.encode()).digest()
        self._public = settings.public_url
        self._names = _own_names(settings, address[0])
        self._proxies = [ipaddress.ip_network(item) for item in settings.trusted_proxies]
        # Cookies are shared by all ports of a host: the port in the name keeps two services apart.
        self.cookie = f"edbjobs_{address[1]}"
        self._owners: WeakKeyDictionary[asyncio.Transport, Principal] = WeakKeyDictionary()

    # Origin ---------------------------------------------------------------------------------

    def check_site(self, request: web.BaseRequest, allowed_origins: Collection[str] = ()) -> None:
        """Refuse a request for a foreign host name, or from a page of another origin.

        Parameters
        ----------
        request : Request
            The request.
        allowed_origins : collection of str
            Other origins whose pages are allowed; `identify` requires the token of them.

        Raises
        ------
        Refused
            HOST_NOT_ALLOWED or ORIGIN_NOT_ALLOWED.
        """
        host = request.headers.get(hdrs.HOST, "")
        if not self._is_own_name(host):
            raise Refused(
                "HOST_NOT_ALLOWED",
                f"expected a host name of this service, got {host!r}; if the name is valid, start the service with "
                "--allowed-host NAME, or --public-url URL behind a proxy",
            )
        if not self._is_own_page(request, host) and request.headers.get(hdrs.ORIGIN) not in allowed_origins:
            raise Refused(
                "ORIGIN_NOT_ALLOWED",
                "pages of another origin may not use this service; behind a proxy, start it with --public-url URL",
            )

    def _is_own_name(self, host: str) -> bool:
        name, is_address = _host_name(host)
        return is_address or name in self._names

    def _is_own_page(self, request: web.BaseRequest, host: str) -> bool:
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None:
            return origin.lower() in {f"http://{host}".lower(), f"https://{host}".lower(), self._public} - {""}
        # Sent by every current browser. A link from another site may open a page, and nothing else.
        site = request.headers.get("Sec-Fetch-Site", "none")
        follows_link = request.method == hdrs.METH_GET and request.headers.get("Sec-Fetch-Mode") == "navigate"
        return site in ("none", "same-origin") or follows_link

    def peer(self, request: web.BaseRequest) -> Peer:
        """Return the sender of a request, as reported by trusted proxies."""
        if PEER not in request:
            request[PEER] = self._find_peer(request)
        return request[PEER]

    def _find_peer(self, request: web.BaseRequest) -> Peer:
        name = request.transport.get_extra_info("peername") if request.transport is not None else None
        host, port = (str(name[0]), int(name[1])) if name else ("0.0.0.0", 0)  # noqa: S104 (no address)
        if not (self._public or any(header in request.headers for header in _PROXIED)):
            return Peer(host, port, self._is_trusted(host))
        if self._is_trusted(host):
            for hop in reversed(",".join(request.headers.getall("X-Forwarded-For", ())).split(",")):
                if not _is_address(hop.strip()):
                    break
                host, port = hop.strip(), 0
                if not self._is_trusted(host):
                    break
        return Peer(host, port, proxied=True)

    def _is_trusted(self, host: str) -> bool:
        address = _address(host)
        return any(address.version == proxy.version and address in proxy for proxy in self._proxies)

    # Caller ----------------------------------------------------------------------------------------

    def identify(self, request: web.BaseRequest, token: str = "") -> Principal:
        """Return the caller of a request.

        Parameters
        ----------
        request : Request
            The request, with a bearer token, a session cookie, or neither.
        token : str, optional
            Token from the URL of the page, or of a Socket.IO connection.

        Raises
        ------
        Refused
            UNAUTHENTICATED.
        """
        peer = self.peer(request)
        given = request.headers.getall(hdrs.AUTHORIZATION, [])
        if token:
            given = [f"Bearer {token}"]
        if given:
            return self._access.identify(peer.label, [("authorization", value) for value in given])
        if not self._is_own_page(request, request.headers.get(hdrs.HOST, "")):
            raise Refused("UNAUTHENTICATED", "a page of another origin must send `Authorization: Bearer TOKEN`")
        if self._has_session(request.cookies):
            return self._access.by_session(peer.label)
        if peer.proxied:
            raise Refused(
                "UNAUTHENTICATED",
                "this request came through a proxy: send `Authorization: Bearer TOKEN`, or open the page once with "
                "?token=TOKEN; the token is in the file `token` in the state folder of the service",
            )
        return self._by_connection(request, peer)

    def _by_connection(self, request: web.BaseRequest, peer: Peer) -> Principal:
        """Return the owner of a connection, which is determined for its first request only."""
        known = self._owners.get(request.transport) if request.transport is not None else None
        if known is None:
            known = self._access.identify(peer.label, ())
            if request.transport is not None:
                self._owners[request.transport] = known
        return known

    def _has_session(self, cookies: Mapping[str, str]) -> bool:
        expiry, _, check = cookies.get(self.cookie, "").partition(".")
        if not (expiry.isascii() and expiry.isdigit() and len(expiry) < 16):
            return False
        return hmac.compare_digest(check.encode(), self._check(expiry).encode()) and int(expiry) > time.time()

    def start_session(self, response: web.StreamResponse) -> None:
        """Set a session cookie in a browser that has sent the token, so that its URL need not hold the token.

        The cookie is valid for a week, and is not accepted as a token.
        """
        expiry = str(int(time.time()) + SESSION_SECONDS)
        secure = self._public.startswith("https:")
        response.set_cookie(
            self.cookie,
            f"{expiry}.{self._check(expiry)}",
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="Strict",
            secure=secure,
        )

    def _check(self, expiry: str) -> str:
        return hmac.new(self._key, expiry.encode(), hashlib.sha256).hexdigest()


def _own_names(settings: Settings, bound: str) -> frozenset[str]:
    names = {"localhost", *settings.allowed_hosts}
    if settings.public_url:
        names.add(urlsplit(settings.public_url).hostname or "")
    if not ipaddress.ip_address(bound).is_loopback:
        names.add(socket.gethostname().lower())
    return frozenset(names)


@lru_cache(256)
def _host_name(host: str) -> tuple[str, bool]:
    """Return the name in a Host header, and whether it is an address; without a name it is ("", False)."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return "", False
    return name, _is_address(name)


@lru_cache(1024)
def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an address; an IPv4-mapped IPv6 address as IPv4."""
    address = ipaddress.ip_address(host)
    return getattr(address, "ipv4_mapped", None) or address


def _is_address(name: str) -> bool:
    # An address is not resolved, so DNS rebinding cannot use it.
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


# Headers of every answer: no framing, no content sniffing, no caching.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
