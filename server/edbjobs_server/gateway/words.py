"""Words of the documented API for values of the contract: the one table between the two."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edbjobs.v1 import event_pb2, principal_pb2

# As in GET /api/me and in the text `principal`.
AUTHENTICATION: Mapping[int, str] = MappingProxyType(
    {
        principal_pb2.AUTHENTICATION_UNSPECIFIED: "",
        principal_pb2.AUTHENTICATION_UNIX_SOCKET: "uds",
        principal_pb2.AUTHENTICATION_LOOPBACK: "loopback",
        principal_pb2.AUTHENTICATION_TOKEN: "token",
        principal_pb2.AUTHENTICATION_CERTIFICATE: "mtls",
    }
)


def principal_text(event: event_pb2.Event) -> str | None:
    """Return who asked for a change as the documented text, ``name (word, address)``; None: the service itself."""
    if not event.HasField("principal"):
        return None
    principal = event.principal
    where = ", ".join(filter(None, (AUTHENTICATION.get(principal.authentication, ""), principal.address)))
    return f"{principal.name} ({where})" if where else principal.name
