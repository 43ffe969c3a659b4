"""What is on disk: one SQLite file, one writer thread, reader threads."""

from edbjobs_server.store.errors import Duplicate, StoreError
from edbjobs_server.store.filters import states_of
from edbjobs_server.store.pages import Page
from edbjobs_server.store.reader import Reader
from edbjobs_server.store.store import Store
from edbjobs_server.store.transaction import Transaction, job_not_found
from edbjobs_server.store.values import Committed, Snapshot

__all__ = [
    "Committed",
    "Duplicate",
    "Page",
    "Reader",
    "Snapshot",
    "Store",
    "StoreError",
    "Transaction",
    "job_not_found",
    "states_of",
]
