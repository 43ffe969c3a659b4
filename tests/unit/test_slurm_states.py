"""Reasons, refusals and slurmstepd's lines mean what they mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.schedulers.slurm import states
from hypothesis import given
from hypothesis import strategies as st

CAPTURES = Path(__file__).resolve().parents[3] / "shared" / "captures" / "slurm"


@pytest.mark.parametrize(
    "reason",
    [
        *("PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "PartitionDown", "DependencyNeverSatisfied"),
        *("JobHeldUser", "JobHeldAdmin", "BadConstraints", "QOSMaxWallDurationPerJobLimit", "QOSMinGRES"),
        *("AssocMaxCpuPerJobLimit", "QOSMaxCpuPerNode", "job requeued in held state"),
    ],
)
def test_reasons_that_do_not_go_away(reason: str) -> None:
    never, message = states.never(reason)
    assert never
    assert message


@pytest.mark.parametrize(
    "reason",
    [
        *(
            "None",
            "",
            "Priority",
            "Resources",
            "BeginTime",
            "Dependency",
            "Licenses",
            "Reservation",
            "JobArrayTaskLimit",
        ),
        *(
            "QOSMaxJobsPerUserLimit",
            "AssocMaxJobsLimit",
            "AssocGrpCpuLimit",
            "QOSGrpNodeLimit",
            "QOSMaxCpuPerUserLimit",
        ),
        *("ReqNodeNotAvail, UnavailableNodes:n1", "NodeDown", "Something new", "QOSMaxSubmitJobPerUserLimit"),
    ],
)
def test_reasons_that_may_go_away(reason: str) -> None:
    assert states.never(reason) == (False, "")


@pytest.mark.parametrize(
    "text",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
        "sinfo: error: Could not establish a configuration source",
        "error: Munge encode failed: Failed to access /run/munge/munge.socket.2",
        "sbatch: error: Batch job submission failed: Protocol authentication error",
    ],
)
def test_silence_is_no_refusal(text: str) -> None:
    assert states.is_silence(text)
    assert not states.is_unknown_job(text)


@pytest.mark.parametrize(
    "text",
    [
        "sbatch: error: Batch job submission failed: Invalid partition name specified",
        "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
        "sbatch: error: Batch job submission failed: Requested node configuration is not available",
        "sbatch: error: Invalid --time specification",
        "slurm_load_jobs error: Invalid job id specified",
    ],
)
def test_an_answer_is_no_silence(text: str) -> None:
    assert not states.is_silence(text)
    assert states.is_unknown_job(text) == ("job id" in text)


def test_captured_refusals_and_silences() -> None:
    if not CAPTURES.is_dir():
        pytest.skip("the captured outputs are not beside this checkout")
    for path in CAPTURES.glob("[01]*_sbatch_*.txt"):
        text = path.read_text()
        if "# rc: 0\n" not in text and "_wait_" not in path.name:
            down = "ctlddown" in path.name or "ctldhung" in path.name
            assert states.is_silence(text.split("# --- stdout")[1]) == down, path.name


STEPD = "slurmstepd: error: *** JOB 11 ON n2 CANCELLED AT 2026-11-23T13:09:17{} ***"


@pytest.mark.parametrize(
    ("lines", "ending"),
    [
        (STEPD.format(""), Ending.CANCELLED_EXTERNALLY),
        (STEPD.format(" DUE TO TIME LIMIT"), Ending.TIMEOUT),
        (STEPD.format(" DUE TO PREEMPTION"), Ending.PREEMPTED),
        (STEPD.format(" DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS"), Ending.NODE_FAIL),
        ("slurmstepd: error: Exceeded job memory limit\n" + STEPD.format(""), Ending.OUT_OF_MEMORY),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=3.batch.", Ending.OUT_OF_MEMORY),
        ("slurmstepd-n1: error: Detected 1 oom_kill event in StepId=3.batch. Some", Ending.OUT_OF_MEMORY),
        ("hello\n" + STEPD.format(" DUE TO TIME LIMIT") + "\n" + STEPD.format(""), Ending.TIMEOUT),
        (STEPD.format(" DUE TO JOB REQUEUE") + "\n" + STEPD.format(" DUE TO TIME LIMIT"), Ending.TIMEOUT),
    ],
)
def test_slurmstepd_tells_the_end(lines: str, ending: Ending) -> None:
    found = states.end_in_output(f"some output\n{lines}\n")
    assert found is not None
    assert found[0] is ending
    assert found[1] in lines


@pytest.mark.parametrize(
    "output",
    ["", "done\n", STEPD.format(" DUE TO JOB REQUEUE"), "I wrote: " + STEPD.format(""), "slurmstepd: error: other"],
)
def test_other_output_tells_nothing(output: str) -> None:
    assert states.end_in_output(output) is None


@given(st.text())
def test_any_output_can_be_read(output: str) -> None:
    found = states.end_in_output(output)
    assert found is None or found[1] in output
    states.never(output)


def test_scancel_passes_over_what_has_ended() -> None:
    assert states.is_over("scancel: error: Kill job error on job id 6: Invalid job id specified")
    assert states.is_over("scancel: error: Kill job error on job id 6: Job/step already completing or completed")
    assert not states.is_over("scancel: error: Kill job error on job id 6: Unable to contact slurm controller")
