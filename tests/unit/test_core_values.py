"""Values of the core that no decision tests."""

from __future__ import annotations

from dataclasses import replace

from edbjobs_server.core.cluster_policy import ClusterPolicy
from edbjobs_server.core.job import Attempt
from edbjobs_server.core.runs import RunKey
from support.core_jobs import make_job


def test_a_run_has_a_folder_of_its_own_in_a_group_of_a_thousand() -> None:
    assert RunKey(12345, "u", 2).folder == "000012/12345.2"
    assert RunKey(12345, "u", 2) == RunKey(12345, "u", 2)


def test_the_scheduler_id_of_a_job_is_that_of_its_last_attempt() -> None:
    attempts = Attempt(1, 1.0, scheduler_job_id="11"), Attempt(2, 2.0, scheduler_job_id="12")
    job = make_job(1)
    assert job.scheduler_job_id == ""
    assert replace(job, attempts=attempts).scheduler_job_id == "12"


def test_without_a_site_policy_cluster_jobs_have_no_folder() -> None:
    policy = ClusterPolicy()
    assert (policy.shared_dir, policy.partitions, policy.extra_options) == (None, (), ())
