"""With slurmdbd: accounts, and what the accounting knows when the controller has forgotten."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.slurm_cluster import SlurmCluster
from support.slurm_service import LONG, SlurmService, end, eventually, kill

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmService]:
    folder = tmp_path_factory.mktemp("accounting")
    with (
        SlurmCluster(folder / "slurm", min_job_age=2, accounting=True, extra_conf="KillWait=2") as cluster,
        SlurmService(folder / "service", cluster) as running,
    ):
        yield running


def test_the_account_is_charged(service: SlurmService) -> None:
    job = service.ended(service.submit(account="proj1"))
    assert end(job) == ("COMPLETED", "NORMAL", "SOLVER_LOG")
    told = service.slurm.run("scontrol", "show", "job", job.scheduler_job_id)
    assert "Account=proj1" in told
    assert f"Comment=edbjobs:{job.uid}:root" in told


def test_another_account_is_refused(service: SlurmService) -> None:
    job = service.ended(service.submit(account="nosuch"))
    assert end(job) == ("FAILED", "SUBMIT_REFUSED", "SCHEDULER")
    assert "Invalid account" in job.outcome.message


def test_what_the_controller_has_forgotten_the_accounting_knows(service: SlurmService) -> None:
    """The service is away until the controller knows none of them any more; nothing has to be waited for then."""
    jobs = {
        "well": service.submit("seconds=5"),
        "badly": service.submit("seconds=5,fail=exit"),
        "scancel": service.submit(LONG),
        "killed": service.submit(LONG),
    }
    for job in jobs.values():
        service.running(job)
    jobs["scancel of one that waits"] = service.scheduled(service.submit(begin="now+1hour"))
    numbers = {name: service.job(job).scheduler_job_id for name, job in jobs.items()}
    script = service.script_pid(jobs["killed"])
    service.kill()
    service.slurm.run("scancel", numbers["scancel"], numbers["scancel of one that waits"])
    kill(script, 9)
    eventually("it has forgotten all", lambda: service.slurm.run("squeue", "-h", "-t", "all"), lambda text: not text)
    service.start()
    found = {name: service.ended(job, 30) for name, job in jobs.items()}  # less than the minute that denials take
    cancelled = ("CANCELLED", "CANCELLED_EXTERNALLY", "SCHEDULER")
    assert {name: end(job) for name, job in found.items()} == {
        "well": ("COMPLETED", "NORMAL", "SOLVER_LOG"),
        "badly": ("FAILED", "EXIT_CODE", "EXIT_CODE"),
        "scancel": cancelled,
        "killed": ("FAILED", "SIGNAL", "SCHEDULER"),
        "scancel of one that waits": cancelled,
    }
    assert found["killed"].outcome.signal == 9
