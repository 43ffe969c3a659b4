"""Who calls. The names and numbers of the enumerations are those of protos/edbjobs/v1/principal.proto."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Role(IntEnum):
    """What a caller may do."""

    UNKNOWN = 0
    VIEWER = 1
    USER = 2
    ADMIN = 3


class Authentication(IntEnum):
    """How a caller was identified."""

    UNKNOWN = 0
    UNIX_SOCKET = 1
    LOOPBACK = 2
    TOKEN = 3
    CERTIFICATE = 4


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller as the service knows it.

    Attributes
    ----------
    name : str
        Account, or name of the token or certificate.
    role : Role
        What it may do.
    authentication : Authentication
        How it was identified; UNKNOWN: a program that hosts the service.
    address : str
        Address that it called from; empty: the Unix socket.
    user : str
        User that its jobs belong to. Default: `name`.
    """

    name: str
    role: Role
    authentication: Authentication = Authentication.UNKNOWN
    address: str = ""
    user: str = ""

    def __post_init__(self) -> None:
        if not self.user:
            object.__setattr__(self, "user", self.name)
