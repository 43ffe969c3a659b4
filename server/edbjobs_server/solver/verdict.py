"""What the end of a run means: success is proven by the solver's own log, never assumed, never guessed.

A log that cannot be read, or cannot be placed in time, makes the result UNVERIFIED. An error that has no bearing on the
log, such as EMFILE or ESTALE, is no verdict at all: it is raised, and the caller judges again.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edbjobs_server.core.runs import Ending, RunEnded
from edbjobs_server.core.states import Evidence, Reason
from edbjobs_server.solver.batch_log import Segment, find_log, read_log, start_times
from edbjobs_server.solver.fatal import Fatal, FatalKind
from edbjobs_server.solver.project import moved
from edbjobs_server.solver.request import SolveRequest
from edbjobs_server.solver.setup_log import SetupLog
from edbjobs_server.util import files

# The log's clock has whole seconds; a node of a cluster has a clock, and a file server, of its own.
_SLACK_SECONDS = 2.0
_OTHER_HOST_SLACK_SECONDS = 120.0


_BY_SCHEDULER = {
    Ending.CANCELLED_EXTERNALLY: (Reason.CANCELLED_EXTERNALLY, "cancelled outside edbjobs"),
    Ending.NODE_FAIL: (Reason.NODE_FAIL, "its node failed"),
    Ending.OUT_OF_MEMORY: (Reason.OUT_OF_MEMORY, "ended for using more memory than it asked for"),
    Ending.PREEMPTED: (Reason.PREEMPTED, "the scheduler gave its place to another job"),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run ended, and on what evidence.

    Attributes
    ----------
    message : str
        A sentence for people, with the log's first fatal line.
    log_path : Path or None
        The run's own log, where there is one.
    """

    reason: Reason
    evidence: Evidence
    message: str
    exit_code: int | None = None
    signal: int | None = None
    log_path: Path | None = None


@dataclass(frozen=True, slots=True)
class _Proof:
    """What the run left: its log, if there is one, and the first fatal line of any of its outputs.

    `doubt` is why the result cannot be known, although exit code 0 alone would count as success: a part
    of a sentence.
    """

    log: Segment | None
    path: Path | None
    fatal: Fatal | None
    doubt: str = ""


def judge(
    ended: RunEnded,
    *,
    project_path: Path,
    job_name: str,
    request: SolveRequest,
    stdout: Path,
    stderr: Path,
    same_host: bool = True,
) -> Verdict:
    """Judge a run that has ended; blocks on the file system.

    Parameters
    ----------
    ended : RunEnded
        As reported by the executor.
    project_path : Path
        Real path of the project, as it was when the job was accepted.
    job_name : str
        What AEDT got as ``-jobid``.
    request : SolveRequest
        What was asked for.
    stdout, stderr : Path
        Output of the run; of this attempt only.
    same_host : bool
        It ran on this host, so that the log's clock is ours.

    Returns
    -------
    Verdict
        COMPLETED on the solver's log, or on the exit code 0 where there is no log at all; in every other case
        FAILED or CANCELLED with the most telling reason.

    Raises
    ------
    OSError
        A transient one, see `edbjobs_server.util.files.is_transient`: judge again.
    """
    if ended.ending is Ending.SUBMIT_REFUSED:
        return _end(ended, Reason.SUBMIT_REFUSED, Evidence.SCHEDULER, ended.message)
    if ended.ending in (Ending.START_FAILED, Ending.NEVER_RAN):
        return _end(ended, Reason.START_FAILED, Evidence.SERVICE, ended.message or "it never ran")
    log_path = find_log(project_path, job_name)
    gone = moved(str(project_path)) or _missing_project(project_path)
    proof = _collect(ended, log_path, (stdout, stderr), same_host, gone)
    if ended.ending is Ending.EXITED and ended.exit_code == 0:
        return _exited_well(ended, request, proof, log_path)
    if ended.ending is Ending.EXITED:
        return _exited_badly(ended, request, proof)
    return _ended_otherwise(ended, request, proof)


def _exited_well(ended: RunEnded, request: SolveRequest, proof: _Proof, looked_for: Path) -> Verdict:
    log, fatal = proof.log, proof.fatal
    wrong = _missing(log, request) if log is not None else None
    waited = request.wait_for_license and fatal is not None and fatal.kind is FatalKind.LICENSE
    if fatal is not None and not (waited and log is not None and wrong is None):
        text = f"the exit code is 0, but the log reports: {fatal.text}"
        return _end(ended, _reason(fatal), Evidence.SOLVER_LOG, text, proof)
    if proof.doubt:
        return _end(ended, Reason.UNVERIFIED, _source(ended), f"exit code 0, but {proof.doubt}")
    if log is None:
        text = f"exit code 0; the solver left no log of this run to prove it by (looked for {looked_for})"
        return _end(ended, Reason.NORMAL, _source(ended), text)
    if wrong is not None:
        reason, text = wrong
        return _end(ended, reason, Evidence.SOLVER_LOG, text, proof)
    return _end(ended, Reason.NORMAL, Evidence.SOLVER_LOG, _summary(log), proof)


def _exited_badly(ended: RunEnded, request: SolveRequest, proof: _Proof) -> Verdict:
    code = ended.exit_code
    if proof.fatal is not None:
        text = f"exit code {code}: {proof.fatal.text}"
        return _end(ended, _reason(proof.fatal), Evidence.SOLVER_LOG, text, proof)
    what = "batch script" if ended.by_scheduler else "solver"  # the scheduler cannot tell one from the other
    text = f"the {what} ended with exit code {code}"
    if code is not None and 128 < code < 160:
        text += f", which a shell gives for a program ended by signal {code - 128}"
        text += " (9: often out of memory)" if code == 137 else ""
    text += f"; {ended.message}" if ended.message else ""
    return _end(ended, Reason.EXIT_CODE, _source(ended), text + _log_summary(request, proof), proof)


def _ended_otherwise(ended: RunEnded, request: SolveRequest, proof: _Proof) -> Verdict:
    log_text = _log_summary(request, proof)
    extra = f": {ended.message}" if ended.message else ""
    if ended.ending is Ending.CANCELLED:
        text = "cancelled" + extra + log_text
        return _end(ended, Reason.CANCELLED, _ended_by(ended), text, proof)
    if ended.ending in _BY_SCHEDULER:
        reason, text = _BY_SCHEDULER[ended.ending]
        return _end(ended, reason, _source(ended), text + extra + log_text, proof)
    if ended.ending is Ending.TIMEOUT:
        text = "ended at its wall-clock limit" + extra + log_text
        return _end(ended, Reason.TIMEOUT, _ended_by(ended), text, proof)
    if ended.ending is Ending.SIGNALLED:
        text = f"ended by signal {ended.signal}, which this service did not send{extra}"
        text += "; signal 9 often comes from the system's out-of-memory killer" if ended.signal == 9 else ""
        return _end(ended, Reason.SIGNAL, _source(ended), text + log_text, proof)
    text = "its end was not observed and left no record" + extra + log_text
    return _end(ended, Reason.LOST, Evidence.NONE, text, proof)


def evidence_without_files(ended: RunEnded) -> Evidence:
    """Return what is known of a run's end where the solver's files cannot be read."""
    if ended.ending is Ending.LOST:
        return Evidence.NONE
    by_service = ended.ending in (Ending.CANCELLED, Ending.TIMEOUT, Ending.START_FAILED)
    return _ended_by(ended) if by_service else _source(ended)


def _source(ended: RunEnded) -> Evidence:
    """Return the source of evidence for the run's end, where no log gives it."""
    return Evidence.SCHEDULER if ended.by_scheduler else Evidence.EXIT_CODE


def _ended_by(ended: RunEnded) -> Evidence:
    """Return the source of evidence for an end that the service, or its scheduler, brought about."""
    return Evidence.SCHEDULER if ended.by_scheduler else Evidence.SERVICE


def _end(ended: RunEnded, reason: Reason, evidence: Evidence, message: str, proof: _Proof | None = None) -> Verdict:
    return Verdict(
        reason=reason,
        evidence=evidence,
        message=message,
        exit_code=ended.exit_code,
        signal=ended.signal,
        log_path=proof.path if proof is not None else None,
    )


def _collect(ended: RunEnded, path: Path, outputs: Iterable[Path], same_host: bool, gone: str) -> _Proof:
    """Read the log, else what the run printed, which with -monitor is the same."""
    if gone:  # the files there may now be another project's, and the printed text cannot be attributed
        return _Proof(None, None, None, gone)
    log, doubt = _own_log(ended, path, same_host)
    found: Path | None = path if log is not None else None
    fatal = log.fatal if log is not None else None
    for output in outputs:
        if fatal is not None or (log is not None and ended.exit_code == 0):
            break
        printed, unreadable = _read_output(output)
        if printed is None:
            doubt = doubt or unreadable
            continue
        fatal = printed.fatal
        if log is None and printed.started:
            log, found, doubt = printed, output, ""
    return _Proof(log, found, fatal, doubt)


def _missing_project(path: Path) -> str:
    """Return why a missing log would prove nothing: a file system that is not mounted has no project either."""
    try:
        return "" if files.mode_of(path) is not None else f"its project is not there any more ({path})"
    except OSError as error:
        if files.is_transient(error):
            raise
        return f"its project cannot be read: {files.text_of(error)} ({path})"


def _own_log(ended: RunEnded, path: Path, same_host: bool) -> tuple[Segment | None, str]:
    """Read the log of the run's name; it counts only if its times match the run's as well.

    Nothing but this run writes a log of this name. So one that cannot be placed in time is a contradiction, as after
    a step of the clock, and not another run's log, as which it could be passed over.
    """
    log, doubt = _read(path)
    if log is None:
        return None, doubt
    wrong = _wrong_time(log, path, ended, same_host) if log.started else "it does not show that the run started"
    if not wrong:
        return log, ""
    log_text = f"; the log reports: {log.fatal.text}" if log.fatal is not None else _first(log)
    return None, f"the solver's log is no proof: {wrong} ({path}){log_text}"


def _read(path: Path) -> tuple[Segment | None, str]:
    """Read a log; without one, the second value is why its existence cannot be determined."""
    try:
        return read_log(path), ""
    except (FileNotFoundError, NotADirectoryError) as error:
        return None, "" if _is_absent(path) else f"the solver's log cannot be read: {files.text_of(error)} ({path})"
    except OSError as error:
        if files.is_transient(error):
            raise
        return None, f"the solver's log cannot be read: {files.text_of(error)} ({path})"


def _read_output(path: Path) -> tuple[Segment | None, str]:
    """Do as `_read`; most runs printed nothing, which needs no opening of the file."""
    try:
        found = files.status_of(path)
    except OSError as error:
        if files.is_transient(error):
            raise
        found = None
    if found is not None and found.st_size == 0 and stat.S_ISREG(found.st_mode):
        return Segment(), ""
    return _read(path)


def _is_absent(path: Path) -> bool:
    """Return whether a file is not there for certain: it may have come, or gone, while it was opened."""
    try:
        return files.mode_of(path) is None
    except OSError as error:
        if files.is_transient(error):
            raise
        return False


def _wrong_time(log: Segment, path: Path, ended: RunEnded, same_host: bool) -> str:
    """Return why a log is not of the run's time; empty: it was started after the run's start.

    On this host the log's own clock decides, else the file's time. Of another host either is enough: it may be in
    another time zone, and the clock of its file server may be wrong.
    """
    if ended.start_time is None:
        return "it is not known when the run started"
    times = start_times(log)
    if same_host and times:
        started, slack = max(times), _SLACK_SECONDS
    else:
        changed = files.status_of(path)
        started = max((*times, changed.st_mtime if changed is not None else 0.0))
        slack = _SLACK_SECONDS if same_host else _OTHER_HOST_SLACK_SECONDS
    if started >= ended.start_time - slack:
        return ""
    return f"its time is {_moment(started)}, but the run started at {_moment(ended.start_time)}; was the clock changed?"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _missing(log: Segment, request: SolveRequest) -> tuple[Reason, str] | None:
    """Return what the log lacks as proof; None: it is proof."""
    if request.validate_only:
        if log.finished and not log.errors:
            return None
        return Reason.UNVERIFIED, f"exit code 0, but the log does not show that the validation ended{_first(log)}"
    if request.optimetrics:
        return _missing_variations(log)
    expected = _expected(log, request.setup)
    open_ones = [setup for setup in expected if not setup.normal]
    if open_ones:
        first = open_ones[0]
        ending = f'ended with "{first.status}"' if first.status else "has no normal end in the log"
        return Reason.UNVERIFIED, f"exit code 0, but setup {first.name} {ending}{_first(log)}"
    if log.skipped and not request.setup and not log.normal_messages:
        text = "the log is too large or too slow to be read whole, and its end does not show that all was solved"
        return Reason.UNVERIFIED, f"exit code 0, but {text}{_first(log)}"
    if expected or (log.normal_messages and not log.setups):
        return None
    if not log.finished:
        return Reason.UNVERIFIED, f"exit code 0, but the log stops before anything was solved{_first(log)}"
    solved = ", ".join(name for name, setup in log.setups.items() if setup.normal)
    what = f"setup {request.setup} was not solved" if request.setup else "nothing was solved"
    hint = f"; solved: {solved}" if solved else "; AEDT may have found its results up to date, or no such setup"
    return Reason.NOTHING_SOLVED, f"exit code 0, but {what}{hint}{_first(log)}"


def _missing_variations(log: Segment) -> tuple[Reason, str] | None:
    if log.parametric_done and all(setup.normal for setup in log.setups.values()):
        return None
    if log.finished and not log.setups and not log.normal_messages:
        return Reason.NOTHING_SOLVED, f"exit code 0, but no variation was solved{_first(log)}"
    return Reason.UNVERIFIED, f"exit code 0, but the log does not show the end of the variations{_first(log)}"


def _expected(log: Segment, setup_name: str) -> list[SetupLog]:
    return [setup for name, setup in log.setups.items() if not setup_name or name == setup_name]


def _reason(fatal: Fatal) -> Reason:
    return Reason.LICENSE if fatal.kind is FatalKind.LICENSE else Reason.SOLVER_ERROR


def _first(log: Segment) -> str:
    return f"; its first error: {log.first_error}" if log.first_error else ""


def _summary(log: Segment) -> str:
    parts = []
    for setup in [*log.setups.values()][:3]:
        text = f"{setup.name}: normal completion"
        if setup.passes_done:
            text += f" after {setup.passes_done} adaptive passes"
        if setup.delta_s is not None:
            text += f", delta S {setup.delta_s:g}"
        if setup.converged is False:
            text += ", not converged"
        parts.append(text)
    if len(log.setups) > 3:
        parts.append(f"and {len(log.setups) - 3} more setups")
    unread = "; the middle of the log was not read, as it is too large or too slow" if log.skipped else ""
    return "; ".join(parts or ["normal completion"]) + (_first(log) if log.errors else "") + unread


def _log_summary(request: SolveRequest, proof: _Proof) -> str:
    if proof.fatal is not None and proof.fatal.kind is not FatalKind.ABORT:
        return f"; its log reports: {proof.fatal.text}"
    if proof.log is not None and proof.fatal is None and _missing(proof.log, request) is None:
        return f"; its log shows that the solve had come to its normal end ({_summary(proof.log)})"
    return f"; {proof.doubt}" if proof.doubt else ""
