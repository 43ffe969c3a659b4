"""The specification of a run, made from its job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from edbjobs.config import JobConfig

from edbjobs_server.core.job import LOCAL, Job
from edbjobs_server.core.runs import OpenRun, RunKey
from edbjobs_server.executors.base import RunSpec
from edbjobs_server.executors.cluster.allocation import allocation_of, job_name
from edbjobs_server.manager.submission import Rules, info
from edbjobs_server.solver import batch_log as solver_log
from edbjobs_server.solver.command_line import command_line
from edbjobs_server.solver.environment import refuse_environment

KEEP = ("ansyscl",)  # AEDT's license client serves other runs as well (facts of AEDT: may outlive the solve)


def run_key(job: Job) -> RunKey:
    """Return the key of the last run of a job."""
    return RunKey(job.seq, job.uid, job.attempt_count)


def solver_job_name(job: Job, attempt: int) -> str:
    """Return what AEDT gets as ``-jobid``, as `edbjobs_server.solver.batch_log.job_name`."""
    return solver_log.job_name(job.spec.project_path, job.id, job.seq, attempt)


def run_spec(job: Job, config: JobConfig, rules: Rules, inherited: Mapping[str, str]) -> RunSpec:
    """Return the next run of a job: program, arguments, folder and environment.

    Parameters
    ----------
    job, config : Job, JobConfig
        What was accepted.
    rules : Rules
        Solvers, host, and what a job may add to the environment.
    inherited : mapping of str to str
        What every run gets of the service's environment.

    Returns
    -------
    RunSpec
        Of a cluster's run, program, project and folder are as its nodes see them.

    Raises
    ------
    Refused
        The solver that was chosen is not there any more, the job may no longer add what it adds, or the nodes do not
        see the project any more.
    """
    refuse_environment(config.environment, rules.environment_allow)
    key = RunKey(job.seq, job.uid, job.attempt_count + 1)
    release = rules.solver(job.spec.scheduler, config, job.aedt_version)
    cores = min(job.spec.cores, rules.host.cores)
    cluster = job.spec.scheduler != LOCAL
    allocation = None
    seen: Callable[[str], str] = str
    if cluster:
        seen = rules.clusters[job.spec.scheduler].node_path
        allocation = allocation_of(
            config, uid=job.uid, job_id=job.id, attempt=key.attempt, user=job.user, site=rules.policy
        )
    return RunSpec(
        key=key,
        argv=command_line(
            config,
            release,
            solver_job_name(job, key.attempt),
            cores,
            project_path=job.spec.project_path,
            cluster=cluster,
            scratch=rules.policy.scratch,
            map_path=seen,
        ),
        cwd=seen(str(Path(job.spec.project_path).parent)),
        env={**inherited, **config.environment},
        time_limit=job.spec.time_limit or None,  # a limit of 0 is none
        cancel_grace_period=job.spec.cancel_grace_period,
        keep=KEEP,
        info=info(job),
        additions=config.environment,
        umask=rules.umask,
        allocation=allocation,
    )


def is_open(job: Job, scheduler: str) -> bool:
    """Return whether a job has an open run with a scheduler."""
    return job.open_attempt is not None and job.spec.scheduler == scheduler


def open_run(job: Job) -> OpenRun:
    """Return the open run of a job, for its executor to adopt."""
    attempt = job.open_attempt
    assert attempt is not None, "only open attempts are adopted"
    grace = job.cancel_grace_period if job.cancel_grace_period is not None else job.spec.cancel_grace_period
    return OpenRun(
        key=run_key(job),
        boot_id=attempt.boot_id,
        cancel_grace=grace if job.cancel_request_time is not None else None,
        started=attempt.start_time is not None,
        scheduler_job_id=attempt.scheduler_job_id,
        name=job_name(job.uid, job.id, attempt.number),
        directory=Path(job.run_directory) if job.run_directory else None,
    )
