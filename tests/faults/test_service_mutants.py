"""The campaign is tried itself: a service with faults of its own must turn the checker red."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.campaign import kinds
from faults.campaign.round import Round

CARELESS = """
from edbjobs_server.manager import run_steps, run_updates
from edbjobs_server.core import planner
from edbjobs_server.core.states import Reason
from edbjobs_server.events.log import EventLog

# Limits do not count.
planner.fit_block = lambda *_: None

# Whatever ended was a success.
result_of = run_updates.result_of
run_steps.result_of = lambda ended, reason, *rest: result_of(ended, Reason.NORMAL, *rest)

# Every seventh change is kept from watchers.
entries_after = EventLog._entries_after
async def some_entries(self, cursor):
    entries = await entries_after(self, cursor)
    return [entry for entry in entries if entry.revision % 7] or entries
EventLog._entries_after = some_entries
"""

FORGETFUL = """
import time
from edbjobs_server.core import job
from edbjobs_server.core.runs import Ending, RunEnded
from edbjobs_server.executors.local.linux.executor import LocalExecutor

# Who came last, and matters least, is first.
job.Job.order = property(lambda self: (self.priority, -self.seq))

# What an earlier service started has never been.
async def adopt(self, open_runs):
    for run in open_runs:
        self.emit(RunEnded(run.key, Ending.NEVER_RAN, time.time()))
LocalExecutor.adopt = adopt
"""


def broken(at: Round) -> set[str]:
    """Throw a few kills at a round; gives the numbers of the invariants that did not hold."""
    report = at.run((name, fault) for name, fault in [("F1", kinds.kill_service)] * 3)
    return {name.split()[0] for name in report.breaches}


@pytest.mark.parametrize(
    ("mutant", "found"), [(CARELESS, {"I3", "I6", "I8"}), (FORGETFUL, {"I2", "I7"})], ids=["careless", "forgetful"]
)
def test_a_bad_service_is_found_out(tmp_path: Path, mutant: str, found: set[str]) -> None:
    at = Round(tmp_path, 7)
    at.service.prelude = mutant
    at.timeout = 15.0  # the watcher may never hear of an end
    assert found <= broken(at)
