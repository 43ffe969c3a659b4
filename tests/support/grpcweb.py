"""A gRPC-Web client that shows every byte, for tests of the endpoint."""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import aiohttp
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

DETAILS = "grpc-status-details-bin"
BINARY = "application/grpc-web+proto"
TEXT = "application/grpc-web-text+proto"


def framed(message: bytes, flags: int = 0) -> bytes:
    """Return a message in a frame."""
    return struct.pack(">BI", flags, len(message)) + message


class Answer(NamedTuple):
    """Answer of a call: HTTP status and headers, messages, trailers."""

    http: int
    headers: Mapping[str, str]
    messages: list[bytes]
    trailers: dict[str, str]

    @property
    def code(self) -> int:
        """gRPC status code."""
        return int(self.trailers["grpc-status"])

    @property
    def text(self) -> str:
        """gRPC status message."""
        return unquote(self.trailers.get("grpc-message", ""))

    @property
    def reason(self) -> str:
        """Reason code in the details; empty without details."""
        return str(self._info().reason)

    @property
    def metadata(self) -> dict[str, str]:
        """Metadata in the details; empty without details."""
        return dict(self._info().metadata)

    def _info(self) -> error_details_pb2.ErrorInfo:
        info = error_details_pb2.ErrorInfo()
        if DETAILS in self.trailers:
            status_pb2.Status.FromString(base64.b64decode(self.trailers[DETAILS])).details[0].Unpack(info)
        return info


def trailers_of(block: bytes) -> dict[str, str]:
    """Return the trailers in the last frame."""
    pairs = (line.partition(":") for line in block.decode().split("\r\n") if line)
    return {key: value.strip() for key, _, value in pairs}


async def frames_of(pieces: AsyncIterator[bytes], text: bool) -> AsyncIterator[tuple[int, bytes]]:
    """Split an answer into frames, each as flags and message."""
    encoded = buffer = b""
    async for piece in pieces:
        if text:  # four characters are three bytes; each frame may be padded on its own
            encoded += piece
            whole = len(encoded) // 4 * 4
            piece = b"".join(base64.b64decode(encoded[at : at + 4]) for at in range(0, whole, 4))
            encoded = encoded[whole:]
        buffer += piece
        while len(buffer) >= 5 and len(buffer) >= 5 + (size := struct.unpack(">I", buffer[1:5])[0]):
            yield buffer[0], buffer[5 : 5 + size]
            buffer = buffer[5 + size :]
    assert not buffer, "the answer ended within a frame"


class Web:
    """Calls to one service.

    Parameters
    ----------
    session : aiohttp.ClientSession
        Session for the calls.
    url : str
        URL of the HTTP endpoint.
    kind : str
        Content type.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, kind: str = BINARY) -> None:
        self.session, self.url, self.kind = session, url, kind

    def post(self, path: str, body: bytes, **headers: str) -> Any:
        """Send a request."""
        sent = {"content-type": self.kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        data = base64.b64encode(body) if "text" in self.kind else body
        return self.session.post(self.url + path, data=io.BytesIO(data), headers=sent)

    async def call(self, path: str, request: Message | bytes, **headers: str) -> Answer:
        """Make a call and return its whole answer."""
        body = request if isinstance(request, bytes) else framed(request.SerializeToString())
        async with self.post(path, body, **headers) as response:
            messages: list[bytes] = []
            trailers: dict[str, str] = {}
            if response.content_type.startswith("application/grpc-web"):
                async for flags, block in frames_of(response.content.iter_any(), "text" in self.kind):
                    assert not trailers, "something follows the trailers"
                    if flags == 0x80:
                        trailers = trailers_of(block)
                    else:
                        messages.append(block)
            return Answer(response.status, response.headers, messages, trailers)
