"""What holds for all tests: a clean environment, and no silent skip in CI."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

CI = bool(os.environ.get("EDBJOBS_CI"))
SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def pytest_configure() -> None:
    """Take out of the environment what would reach the services that tests start."""
    for name in list(os.environ):
        if (name.startswith(("EDBJOBS_", "ANSYS", "AWP_")) and name != "EDBJOBS_CI") or name.endswith("_proxy"):
            del os.environ[name]
    os.environ["PATH"] = SAFE_PATH
    os.environ["EDBJOBS_SCHEDULER"] = "none"  # a cluster is there only for tests that bring one


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI everything is installed, so a skip is an error."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
