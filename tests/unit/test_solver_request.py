"""What was accepted is read again without being checked again."""

from __future__ import annotations

from datetime import timedelta

from edbjobs.config import DesignMode, JobConfig, LayoutOptions
from edbjobs.v1 import job_config_pb2
from edbjobs_server.solver.request import SolveRequest


def test_it_has_what_was_asked_for() -> None:
    config = JobConfig(
        project_path="/p.aedt",
        design="d",
        design_mode=DesignMode.OPTIMETRICS,
        setup="s",
        layout_options=LayoutOptions(validate_only=True),
        wait_for_license=True,
        license_wait_limit=timedelta(seconds=90.5),
    )
    assert SolveRequest.from_message(config.to_message()) == SolveRequest("d", "s", True, True, True, 90.5)


def test_what_is_not_set_has_its_default() -> None:
    assert SolveRequest.from_message(job_config_pb2.JobConfig()) == SolveRequest()


def test_what_no_release_would_accept_now_is_read_nevertheless() -> None:
    message = job_config_pb2.JobConfig(setup="-x\n", project_path="relative")
    message.environment["LD_PRELOAD"] = "x"
    found = SolveRequest.from_message(message)
    assert (found.setup, found.optimetrics) == ("-x\n", False)
