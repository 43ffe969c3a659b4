"""What can go wrong with the store as such."""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot be opened or rebuilt; its text is one line for the administrator."""


class Duplicate(Exception):
    """A new job has something that must be unique and is taken.

    Raised to the command that inserts, which looks up the job that exists; nothing was written.

    Parameters
    ----------
    what : str
        ``id``, ``uid`` or ``request_id``.
    value : str
        The value that is taken.
    """

    def __init__(self, what: str, value: str) -> None:
        super().__init__(f"{what} {value!r} is taken")
        self.what = what
        self.value = value
