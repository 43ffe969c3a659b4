"""The steps of a run that touch the user's files; they block, and run in the workers for users' paths."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edbjobs.config import ExistingResults
from edbjobs.v1 import job_config_pb2

from edbjobs_server.contract.accepted import accepted_config
from edbjobs_server.core.errors import ErrorReason, Refused
from edbjobs_server.core.job import LOCAL, Job
from edbjobs_server.core.runs import Ending, RunEnded
from edbjobs_server.core.states import Reason
from edbjobs_server.core.transitions import RunResult
from edbjobs_server.executors.base import RunSpec
from edbjobs_server.manager.run_spec import run_spec, solver_job_name
from edbjobs_server.manager.run_updates import result_of
from edbjobs_server.manager.submission import Rules, refuse_outside
from edbjobs_server.solver import project, project_lock, project_results, verdict
from edbjobs_server.solver.request import SolveRequest
from edbjobs_server.util.files import is_transient, text_of

_NO_LICENSE = "no license within license_wait_limit: no setup was started in that time"
_REASONS: dict[ErrorReason, Reason] = {
    "SOLVER_NOT_FOUND": Reason.SOLVER_NOT_FOUND,
    "SOLVER_NOT_ALLOWED": Reason.SOLVER_NOT_FOUND,
    "PROJECT_NOT_FOUND": Reason.PROJECT_NOT_FOUND,
}
_WITHOUT_RESULT = {
    Ending.CANCELLED: Reason.CANCELLED,
    Ending.CANCELLED_EXTERNALLY: Reason.CANCELLED_EXTERNALLY,
    Ending.SIGNALLED: Reason.SIGNAL,
    Ending.TIMEOUT: Reason.TIMEOUT,
    Ending.START_FAILED: Reason.START_FAILED,
    Ending.LOST: Reason.LOST,
}


class _Moved(Refused):
    """The path is no longer the project that was accepted."""


@dataclass(frozen=True)
class Prepared:
    """Result of the inspection of a planned job's project: a lock, or the run.

    Attributes
    ----------
    clear : bool
        Whether earlier results must be removed before the start.
    """

    lock: project_lock.Lock | None = None
    spec: RunSpec | None = None
    clear: bool = False


def prepare(job: Job, rules: Rules, environment: Mapping[str, str]) -> Prepared:
    """Inspect the project of a planned job, and build its run.

    Raises
    ------
    Refused
        The job cannot be started as it was accepted.
    OSError
        Its files cannot be read now.
    """
    try:
        return _prepare(job, rules, environment)
    except OSError as error:
        if is_transient(error):
            raise
        raise Refused("INVALID_JOB", f"the project cannot be prepared: {error}") from error


def _prepare(job: Job, rules: Rules, environment: Mapping[str, str]) -> Prepared:
    path = job.spec.project_path
    found = project.inspect(path)
    _refuse_moved(path, found)
    refuse_outside(found.path, rules.project_roots)
    lock = project_lock.lock_state(found)
    if lock is not None:
        return Prepared(lock=lock)
    config = accepted_config(job.config)
    project_results.refuse_results(found, config.existing_results or ExistingResults.KEEP)
    spec = run_spec(job, config, rules, environment)
    return Prepared(spec=spec, clear=config.existing_results is ExistingResults.CLEAR)


def _refuse_moved(path: str, found: project.Project) -> None:
    """Raise if the path is no longer the project that was accepted."""
    if os.path.normcase(found.path) != os.path.normcase(path):
        raise _Moved("INVALID_JOB", project.moved_text(path, str(found.path)))


def reason_of(refused: Refused) -> Reason:
    """Return the reason of a job that ends because it cannot be started."""
    if isinstance(refused, project_results.ResultsExist):
        return Reason.RESULTS_EXIST
    if isinstance(refused, _Moved):
        return Reason.PROJECT_CHANGED
    return _REASONS.get(refused.reason, Reason.START_FAILED)


def judge(job: Job, ended: RunEnded) -> tuple[RunResult, str]:
    """Judge the end of a run by the solver's files.

    Returns
    -------
    tuple of RunResult and str
        The second value reports a lock file that was removed; empty: none was.

    Raises
    ------
    OSError
        The solver's files cannot be read now.
    """
    try:
        return _judge(job, ended)
    except OSError as error:
        if is_transient(error):
            raise
        return unjudged(ended, text_of(error)), ""


def unjudged(ended: RunEnded, why: str) -> RunResult:
    """Build the result of a run whose files cannot be read: as the executor reports it, and never a success."""
    reason = _WITHOUT_RESULT.get(ended.ending, Reason.UNVERIFIED)
    how = f"exit code {ended.exit_code}" if ended.exit_code is not None else ended.ending.value.replace("_", " ")
    text = f"the run ended ({how}), but its result could not be read: {why}"
    return result_of(ended, reason, verdict.evidence_without_files(ended), text)


def _judge(job: Job, ended: RunEnded) -> tuple[RunResult, str]:
    directory = Path(job.run_directory)
    path = Path(job.spec.project_path)
    request = SolveRequest.from_message(job_config_pb2.JobConfig.FromString(job.config))
    found = verdict.judge(
        ended,
        project_path=path,
        job_name=solver_job_name(job, ended.key.attempt),
        request=request,
        stdout=directory / "stdout",
        stderr=directory / "stderr",
        same_host=job.spec.scheduler == LOCAL,
    )
    note = _remove_lock(path, ended.start_time) if job.spec.scheduler == LOCAL else ""
    result = result_of(ended, found.reason, found.evidence, found.message)
    waited = request.wait_for_license and request.license_wait_limit is not None
    if ended.ending is Ending.CANCELLED and job.cancel_request_time is None and waited:
        # No cancel is on record: the limit of the wait for a license has ended it.
        outcome = replace(result.outcome, reason=Reason.LICENSE, message=_NO_LICENSE)
        return replace(result, outcome=outcome), note
    return result, note


def _remove_lock(path: Path, start_time: float | None) -> str:
    """Remove the lock that the run left; return a note on it."""
    if start_time is None:
        return ""
    try:
        removed = project_lock.remove_own_lock(path, start_time)
    except OSError as error:
        if is_transient(error):
            raise
        return f"the lock that this run left could not be removed: {error}"
    return f"removed {removed}, which this run left" if removed else ""
