"""The bytes of gRPC-Web: frames, trailers, timeouts and metadata.

Implements PROTOCOL-WEB.md and PROTOCOL-HTTP2.md of gRPC. A frame is a byte of flags, a length of four bytes, and a
message; the last frame of an answer holds the trailers, because browsers do not expose HTTP trailers to pages.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Iterable, Mapping
from urllib.parse import quote

import grpc

from edbjobs_server.core.errors import Refused

Metadata = Iterable[tuple[str, str | bytes]]

_HEADER = struct.Struct(">BI")
_COMPRESSED = 0x01
_TRAILERS = 0x80
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
# Characters of a status message that are not percent-encoded: printable ASCII but the percent sign.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_TEXT_PART = re.compile(rb"[^=]+={0,2}")


def message_of(body: bytes) -> bytes:
    """Return the one message of a request, without its frame.

    Raises
    ------
    Refused
        INVALID_REQUEST, or NOT_SERVED for a compressed message.
    """
    if len(body) < _HEADER.size:
        raise Refused(
            "INVALID_REQUEST",
            f"expected one message in a gRPC-Web frame, got {len(body)} bytes",
        )
    flags, length = _HEADER.unpack_from(body)
    if flags & _COMPRESSED:
        text = "compressed messages are not supported; send messages without compression"
        raise Refused("NOT_SERVED", text, metadata={"field": "grpc-encoding"})
    if flags or len(body) != _HEADER.size + length:
        raise Refused(
            "INVALID_REQUEST",
            f"expected one message in a gRPC-Web frame, got a header of {length} bytes and flags {flags}, "
            f"followed by {len(body) - _HEADER.size} bytes",
        )
    return body[_HEADER.size :]


def frame(message: bytes) -> bytes:
    """Return the frame of a message."""
    return _HEADER.pack(0, len(message)) + message


def trailers(code: grpc.StatusCode, text: str, metadata: Metadata) -> bytes:
    """Return the last frame of an answer."""
    lines = [f"grpc-status: {code.value[0]}"]
    if text:
        lines.append(f"grpc-message: {quote(text, safe=_PLAIN, errors='replace')}")
    for key, value in metadata:
        written = base64.b64encode(value).decode() if isinstance(value, bytes) else value
        lines.append(f"{key}: {written}")
    block = "".join(f"{line}\r\n" for line in lines).encode()
    return _HEADER.pack(_TRAILERS, len(block)) + block


def from_text(body: bytes) -> bytes:
    """Decode base64; a client may send it in pieces, each padded.

    Raises
    ------
    Refused
        INVALID_REQUEST.
    """
    try:
        return b"".join(base64.b64decode(part, validate=True) for part in _TEXT_PART.findall(body))
    except binascii.Error as error:
        raise Refused("INVALID_REQUEST", f"the body of application/grpc-web-text is not base64: {error}") from None


def timeout_of(value: str) -> float | None:
    """Return the seconds of a ``grpc-timeout``; None if it is empty.

    Raises
    ------
    Refused
        INVALID_REQUEST.
    """
    if not value:
        return None
    digits, unit = value[:-1], value[-1]
    if unit not in _UNITS or not (digits.isascii() and digits.isdigit()) or len(digits) > 8:
        raise Refused(
            "INVALID_REQUEST", f"grpc-timeout: expected digits and a unit, such as 1500m for 1.5 seconds, got {value!r}"
        )
    return int(digits) * _UNITS[unit]


def metadata_of(headers: Mapping[str, str]) -> tuple[tuple[str, str | bytes], ...]:
    """Return the metadata in the headers of a request; values of keys that end in ``-bin`` are bytes.

    Raises
    ------
    Refused
        INVALID_REQUEST.
    """
    return tuple(_pair(key.lower(), value) for key, value in headers.items())


def _pair(key: str, value: str) -> tuple[str, str | bytes]:
    if not key.endswith("-bin"):
        return key, value
    try:
        return key, base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Refused("INVALID_REQUEST", f"{key}: expected base64") from None
