from __future__ import annotations

import asyncio
import sys

import pytest
from edbjobs_server.service import event_loop


async def kind() -> str:
    return type(asyncio.get_running_loop()).__module__


@pytest.mark.skipif(sys.platform != "linux", reason="uvloop is a dependency on Linux only")
def test_the_service_runs_on_uvloop_where_it_is_installed() -> None:
    assert event_loop.run(kind()).startswith("uvloop")


def test_it_runs_on_the_standard_loop_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert event_loop.run(kind()).startswith("asyncio")


def test_what_is_raised_is_raised_here() -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        event_loop.run(fails())
