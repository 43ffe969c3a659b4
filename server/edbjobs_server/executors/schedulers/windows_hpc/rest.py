"""HTTP to the REST service of an HPC Pack head node: one request, its deadline, and what its answer means.

The routes and forms are those of Microsoft's specification of the "HPC Pack REST API 2019" (MIT license); the same
routes serve HPC Pack 2016 Update 3. The specification names HTTP Basic as the only way to log in, so the password
goes with every request, and plain HTTP is refused.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edbjobs_server.executors.schedulers.base import Unreachable
from edbjobs_server.util.timeouts import timeout

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

MAX_ANSWER = 64 << 20  # bytes
MAX_WORDS = 500  # of a server's error in a message
MAX_PAGES = 100
_CHUNK = 1 << 16
_CONNECTIONS = 8

Credentials = Callable[[], "tuple[str, str]"]
Json = Any  # what json.loads gives


class SaidNo(Exception):
    """The head node understood a request and refused it. The text is its words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"HTTP {status}: {words}" if words else f"HTTP {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """Body of a successful answer, None if empty, and its headers."""

    body: Json
    headers: Mapping[str, str]


def base_url(url: str) -> str:
    """Return the common prefix of all routes.

    Parameters
    ----------
    url : str
        ``https://HEADNODE``, with a port if it is not 443, with or without ``/hpc``. ``http://`` only on loopback.

    Raises
    ------
    ValueError
        It is none of these.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"windows_hpc: {url!r} is not the address of a head node; write https://HEADNODE")
    if parts.username is not None or parts.password is not None:
        raise ValueError("windows_hpc: the address must not hold a user or a password; they have settings of their own")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ValueError(f"windows_hpc: {url!r} would send the password in the clear; write https://")
    path = parts.path.rstrip("/")
    if path not in ("", "/hpc"):
        raise ValueError(f"windows_hpc: {url!r} has the path {path!r}; the REST service is at /hpc")
    return f"{parts.scheme}://{parts.netloc}/hpc"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Rest:
    r"""Connection to one head node.

    Parameters
    ----------
    url : str
        As for `base_url`.
    credentials : callable
        Gives user, as ``DOMAIN\user``, and password; asked before each request, so that they can be renewed.
    ca_file : Path or None
        Certificates to trust; None: those of the system.
    deadline : float
        Seconds for each request.
    """

    def __init__(self, url: str, credentials: Credentials, ca_file: Path | None, deadline: float) -> None:
        self.base = base_url(url)
        self.deadline = deadline
        self._credentials = credentials
        self._ca_file = ca_file
        self._session: ClientSession | None = None

    def log_in(self) -> tuple[str, str]:
        """Return user and password.

        Raises
        ------
        Unreachable
            They cannot be read, or HTTP Basic cannot carry them.
        """
        try:
            user, password = self._credentials()
        except (OSError, ValueError) as error:
            raise Unreachable(f"user and password for {self.base} cannot be used: {error}") from error
        if not user or ":" in user:
            raise Unreachable(f"the user for {self.base} must be given as DOMAIN\\user, without a colon")
        return user, password

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        """Ask; see `call`."""
        return await self.call("GET", path, query=query)

    async def post(self, path: str, body: Json = None, query: Mapping[str, str] | None = None) -> Answer:
        """Return the answer; see `call`. A body of None is no body."""
        return await self.call("POST", path, body, query)

    async def call(self, method: str, path: str, body: Json = None, query: Mapping[str, str] | None = None) -> Answer:
        """Make one request.

        Parameters
        ----------
        method, path : str
            `path` starts after ``/hpc``.
        body : JSON value
            None: no body.
        query : mapping of str to str
            Put behind the path, quoted.

        Raises
        ------
        SaidNo
            It was understood and refused (HTTP 4xx).
        Unreachable
            There was no usable answer in time, or the head node does not let us in. Whether the request was carried
            out is not known.
        """
        from aiohttp import ClientError

        user, password = self.log_in()
        what = f"{method} {self.base}{path}"
        try:
            session = self._open()
            headers = {"Authorization": _basic(user, password), "Accept": "application/json"}
            async with timeout(self.deadline):
                return await self._talk(session, method, path, body, query, headers, what, password)
        except (asyncio.TimeoutError, TimeoutError):
            raise Unreachable(f"{what} was not answered within {self.deadline:g} s") from None
        except (ClientError, OSError) as error:
            raise Unreachable(f"{what} failed: {_hidden(str(error) or type(error).__name__, password)}") from error

    async def _talk(
        self,
        session: ClientSession,
        method: str,
        path: str,
        body: Json,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str],
        what: str,
        password: str,
    ) -> Answer:
        # A redirect is not followed: it would take the password to another place.
        async with session.request(
            method, self.base + path, params=query, json=body, headers=headers, allow_redirects=False
        ) as response:
            text = (await _read(response, what)).decode("utf-8", errors="replace")
            if response.status >= 300:
                raise _failure(response.status, what, _hidden(_words(text), password))
            return Answer(_parsed(text, what), response.headers)

    async def rows(self, path: str, query: Mapping[str, str], most: int) -> list[dict[str, str]]:
        """List objects page by page; each is given as its properties.

        Parameters
        ----------
        path : str
            Of a list.
        query : mapping of str to str
            Without the paging.
        most : int
            Rows at most.

        Raises
        ------
        Unreachable
            There are more, so that nothing follows from what is missing; or as `call`.
        SaidNo
            As `call`.
        """
        found: list[dict[str, str]] = []
        for _ in range(MAX_PAGES):
            page = {**query, "startRow": str(len(found)), "rowsPerRead": str(min(most, 500))}
            answer = await self.get(path, page)
            rows = [properties(_field(row, "Properties"), path) for row in items(answer.body, path)]
            found += rows
            total = answer.headers.get("x-ms-row-count", "")
            if not rows or (total.isdecimal() and len(found) >= int(total)):
                return found
            if len(found) >= most:
                break
        raise Unreachable(f"GET {self.base}{path} lists more than {most} rows; nothing follows from a part of them")

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def _open(self) -> ClientSession:
        if self._session is None:
            # Only services with such a cluster need to load it.
            from aiohttp import ClientSession, TCPConnector

            trust = ssl.create_default_context(cafile=str(self._ca_file) if self._ca_file is not None else None)
            self._session = ClientSession(connector=TCPConnector(limit=_CONNECTIONS, ssl=trust), trust_env=False)
        return self._session


def items(body: Json, path: str) -> list[Json]:
    """Take an answer as a list."""
    if not isinstance(body, list):
        raise Unreachable(f"the answer to {path} is not a list; is this the REST service of HPC Pack 2016 U3 or later?")
    return body


def properties(body: Json, path: str) -> dict[str, str]:
    """Take an answer as properties: a list of ``{"Name": …, "Value": …}``; those without a value are left out."""
    found: dict[str, str] = {}
    for item in items(body, path):
        name, value = _field(item, "Name"), _field(item, "Value")
        if isinstance(name, str) and value is not None:
            found[name] = value if isinstance(value, str) else json.dumps(value)
    return found


def _field(item: Json, name: str) -> Json:
    return item.get(name) if isinstance(item, dict) else None


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


async def _read(response: ClientResponse, what: str) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_chunked(_CHUNK):
        size += len(piece)
        if size > MAX_ANSWER:
            raise Unreachable(f"{what} was answered with more than {MAX_ANSWER >> 20} MiB")
        pieces.append(piece)
    return b"".join(pieces)


def _parsed(text: str, what: str) -> Json:
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError:
        raise Unreachable(f"{what} was not answered in JSON: {_words(text)[:100]}") from None


def _failure(status: int, what: str, words: str) -> Exception:
    if status == 401:
        return Unreachable(
            f"{what}: the head node does not accept the user and password (HTTP 401); set them again, the user as "
            "DOMAIN\\user, and see that HTTP Basic is switched on for its REST service"
        )
    if status == 403:
        return Forbidden(
            f"{what}: the user is not allowed to do this (HTTP 403); add it to the cluster's users: {words}"
        )
    if status in (407, 408, 425, 429) or status >= 500:
        return Unreachable(f"{what}: the head node is not able to answer now (HTTP {status}): {words}")
    if status < 400:
        return Unreachable(
            f"{what}: answered with a redirect (HTTP {status}), which is not followed; correct the address"
        )
    return SaidNo(status, words)


class Forbidden(Unreachable):
    """The head node answered that the account may not do this (HTTP 403)."""


_TAG = re.compile(r"<(/?)([A-Za-z]{0,8})[^<>]*>")


def _without_tags(text: str) -> str:
    """Return the text of an XML or HTML body, without style sheets and scripts."""
    parts, at, hidden = [], 0, False
    for tag in _TAG.finditer(text):
        if not hidden:
            parts.append(text[at : tag.start()])
        at = tag.end()
        if tag[2].lower() in ("style", "script"):
            hidden = not tag[1]
    if not hidden:
        parts.append(text[at:])
    return " ".join(parts)


def _words(text: str) -> str:
    """Take the sentence for people out of the body of an error: a JSON string or object, XML, HTML or plain text."""
    try:
        body = json.loads(text)
    except ValueError:
        body = _without_tags(text)
    if isinstance(body, dict):
        fields = {str(name).lower(): value for name, value in body.items()}
        body = fields.get("message") or fields.get("exceptionmessage") or fields.get("detail") or text
    plain = "".join(char if char.isprintable() else " " for char in str(body))
    return " ".join(plain.split())[:MAX_WORDS]


def _hidden(text: str, password: str) -> str:
    return text.replace(password, "***") if password else text
