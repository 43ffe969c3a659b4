"""What the comments of errors.proto promise of each reason."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import grpc

_PROTO = Path(__file__).resolve().parents[2] / "protos" / "edbjobs" / "v1" / "errors.proto"
_CODES = {code.name: code for code in grpc.StatusCode}


class Documented(NamedTuple):
    """The promises of one reason.

    Attributes
    ----------
    code : grpc.StatusCode
        Status code.
    metadata : frozenset of str
        Keys of the metadata.
    has_retry_info, has_fields : bool
        Its details have a delay, or name the wrong fields.
    """

    code: grpc.StatusCode
    metadata: frozenset[str]
    has_retry_info: bool
    has_fields: bool


@cache
def documented() -> dict[str, Documented]:
    """Return the promises of each reason."""
    found = {}
    for comment, name in re.findall(r"((?:  // .*\n)+)  ERROR_REASON_(\w+) = \d+;", _PROTO.read_text()):
        words = " ".join(line.removeprefix("  // ") for line in comment.splitlines())
        code = words.partition(".")[0]
        if code in _CODES:
            listed = re.search(r"Metadata: ([^.]*)\.", words)
            # Each key is the first word of its part: "uid, if that made one job", "field, or rpc", "incident, under".
            keys = re.findall(r"(?:^|, (?:or )?)(?!if |under )(\w+)", listed[1]) if listed else []
            has_retry, has_fields = "google.rpc.RetryInfo" in words, "google.rpc.BadRequest" in words
            found[name] = Documented(_CODES[code], frozenset(keys), has_retry, has_fields)
    return found
