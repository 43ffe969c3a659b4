"""Errors of the file system."""

from __future__ import annotations

import errno

_NAMES = (
    "EMFILE ENFILE ENOMEM EAGAIN EINTR ESTALE ETIMEDOUT EIO ENOLINK EREMOTEIO EHOSTDOWN EHOSTUNREACH ECONNRESET ENOBUFS"
)
TRANSIENT = frozenset(getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name))


def is_transient(error: BaseException) -> bool:
    """Return whether an error may be gone when the same is tried again."""
    if isinstance(error, MemoryError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno in TRANSIENT
