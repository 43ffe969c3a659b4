"""What holds for all tests: a clean environment, and no silent skip in CI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine may take any time for an example; what must be fast is measured by tests/bench.
settings.register_profile("edbjobs", deadline=None)
settings.load_profile("edbjobs")

CI = bool(os.environ.get("EDBJOBS_CI"))
SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def pytest_configure() -> None:
    """Take out of the environment what would reach the services that tests start."""
    for name in list(os.environ):
        if (name.startswith(("EDBJOBS_", "ANSYS", "AWP_")) and name != "EDBJOBS_CI") or name.endswith("_proxy"):
            del os.environ[name]
    os.environ["PATH"] = SAFE_PATH
    os.environ["EDBJOBS_SCHEDULER"] = "none"  # a cluster is there only for tests that bring one


def _allowed_skips() -> frozenset[str]:
    lines = (Path(__file__).parent / "allowed_skips.txt").read_text().splitlines()
    return frozenset(line.split("  ")[0] for line in lines if line and not line.startswith("#"))


ALLOWED_SKIPS = _allowed_skips()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Fail a test that is skipped in CI, where everything is installed, unless allowed_skips.txt lists it."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if CI and report.skipped and not hasattr(report, "wasxfail") and item.nodeid not in ALLOWED_SKIPS:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
