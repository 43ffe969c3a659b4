"""Whatever a file system answers, and at whichever call: a transient error is raised, a definite one is an answer."""

from __future__ import annotations

import errno
import io
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from edbjobs.config import ExistingResults
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.runs import Ending, RunEnded, RunKey
from edbjobs_server.core.states import Evidence, Reason, State
from edbjobs_server.solver import project, project_lock, project_results
from edbjobs_server.solver.batch_log import find_log, read_log
from edbjobs_server.solver.demo import example_project
from edbjobs_server.solver.demo.journal import clock
from edbjobs_server.solver.progress import LogFollower
from edbjobs_server.solver.request import SolveRequest
from edbjobs_server.solver.setups import read_setups
from edbjobs_server.solver.verdict import Verdict, judge

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX calls")

STARTED = 1_700_000_000.0
STAMP = "(9:41:40 PM  Mar 17, 2023)"
NORMAL = f"[info] Project:p, S1 : [PROFILE] Solution Process : Stop Time: x, Status: Normal Completion {STAMP}\n"
CALLS = ("open", "stat", "lstat", "fstat", "readlink", "unlink", "rmdir", "scandir", "pathconf", "access")
TRANSIENT = ("EMFILE", "ENOMEM", "ESTALE", "EIO")
DEFINITE = ("ENOENT", "EACCES", "ENAMETOOLONG", "EROFS", "ELOOP")
GONE = ("ENOENT", "ENOTDIR")


class Faults:
    """Lets the calls of the system fail from the `first` on, or only that one; counts them all."""

    def __init__(self, number: int = 0, first: int = sys.maxsize, lasting: bool = False) -> None:
        self.number = number
        self.first = first
        self.lasting = lasting
        self.calls: list[str] = []

    def hit(self, name: str) -> None:
        self.calls.append(name)
        at = len(self.calls) - 1
        if at == self.first or (self.lasting and at > self.first):
            raise OSError(self.number, os.strerror(self.number), "/injected")

    @contextmanager
    def active(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, self._wrapped(name, getattr(os, name)))
            patch.setattr(os, "fdopen", lambda file, _: io.BufferedReader(_Raw(file, self)))
            yield

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            try:
                self.hit(name)
            except OSError:
                if name == "access":
                    return False  # it does not tell why
                raise
            return call(*args, **kwargs)

        return wrapped


class _Raw(io.FileIO):
    def __init__(self, file: int, faults: Faults) -> None:
        super().__init__(file)
        self._faults = faults

    def readinto(self, buffer: Any) -> Any:
        self._faults.hit("read")
        return super().readinto(buffer)


def make(folder: Path, log: str = NORMAL) -> Path:
    """Make an .aedb project with all that a run may leave beside it."""
    folder.mkdir()
    aedb = folder / "p.aedb"
    aedb.mkdir()
    (aedb / "edb.def").write_text("$begin 'Hdr'\n$end 'Hdr'\n")
    example_project(folder).rename(folder / "p.aedt")
    os.utime(folder / "p.aedt", (STARTED, STARTED))
    with zipfile.ZipFile(folder / "p.aedtz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "p.aedt", "p.aedt")
    (folder / "p.aedb.lock").write_text("somebody")
    (folder / "p.aedtresults" / "inner").mkdir(parents=True)
    (folder / "p.aedtresults" / "inner" / "file").touch()
    (folder / "link").symlink_to(".")
    (folder / "link.aedt").symlink_to("p.aedt")
    path = find_log(aedb, "j1")
    path.parent.mkdir()
    path.write_text(f"Starting Batch Run: {clock(STARTED)}\n{log}")
    (folder / "stdout").touch()
    (folder / "stderr").touch()
    return folder


def verdict(folder: Path, code: int = 0) -> Verdict:
    return judge(
        RunEnded(RunKey(1, "u", 1), Ending.EXITED, STARTED + 60, STARTED, code), project_path=folder / "p.aedb",
        job_name="j1", request=SolveRequest(), stdout=folder / "stdout", stderr=folder / "stderr",
    )  # fmt: skip


def known(folder: Path, kind: str = "aedb") -> project.Project:
    return project.Project(str(folder / f"p.{kind}"), str(folder / "p"), kind)


WORK: dict[str, Callable[[Path], object]] = {
    "judge": verdict,
    "judge a failure": lambda folder: verdict(folder, 3),
    "find_log": lambda folder: find_log(folder / "p.aedb", "j2"),
    "read_log": lambda folder: read_log(find_log(folder / "p.aedb", "j1")),
    "follow a log": lambda folder: LogFollower(folder / "p.aedb.batchinfo/p-j1.log").poll(),
    "inspect an .aedb": lambda folder: project.inspect(str(folder / "link" / "p.aedb")),
    "inspect a link": lambda folder: project.inspect(str(folder / "link.aedt")),
    "moved": lambda folder: project.moved(str(folder / "p.aedb")),
    "lock_state": lambda folder: project_lock.lock_state(known(folder)),
    "remove_own_lock": lambda folder: project_lock.remove_own_lock(folder / "p.aedb", 0),
    "refuse_results": lambda folder: project_results.refuse_results(known(folder), ExistingResults.REFUSE),
    "clear_results": lambda folder: project_results.clear_results(folder / "p.aedb"),
    "stale_sibling": lambda folder: project.stale_sibling(known(folder)),
    "setups of an .aedt": lambda folder: read_setups(folder / "p.aedt"),
    "setups of an .aedb": lambda folder: read_setups(folder / "p.aedb"),
    "setups of an .aedtz": lambda folder: read_setups(folder / "p.aedtz"),
}
READERS = ("read_log", "follow a log", "setups of an .aedt", "setups of an .aedb", "setups of an .aedtz")


def outcome(work: Callable[[Path], object], folder: Path, faults: Faults) -> object:
    with faults.active():
        try:
            return work(folder)
        except (Refused, OSError) as error:
            return error


def trials(name: str, tmp_path: Path, errors: tuple[str, ...], log: str = NORMAL) -> Iterator[tuple[str, str, object]]:
    """Let each call fail with each error, alone and with all after it; yield the call, the error and the outcome."""
    count = Faults()
    outcome(WORK[name], make(tmp_path / "count"), count)
    assert count.calls
    for at, call in enumerate(count.calls):
        for error in errors:
            for lasting in (False, True):
                folder = make(tmp_path / f"{at}-{error}-{lasting}", log)
                faults = Faults(getattr(errno, error), at, lasting)
                found = outcome(WORK[name], folder, faults)
                yield (f"{call} (number {at}) once" if not lasting else f"{call} (number {at}) on"), error, found


@pytest.mark.parametrize("name", WORK)
def test_a_transient_error_is_raised_whichever_call_has_it(name: str, tmp_path: Path) -> None:
    usual = outcome(WORK[name], make(tmp_path / "usual"), Faults())
    for call, error, found in trials(name, tmp_path, TRANSIENT):
        if call.startswith("access") and call.endswith("once"):  # asked again in another way, which succeeds
            assert type(found) is type(usual)
            continue
        assert isinstance(found, OSError), f"{call}: {error} became {found}"
        assert found.errno == getattr(errno, error), f"{call}: {error} became {found}"


@pytest.mark.parametrize("name", WORK)
def test_a_definite_error_is_an_answer_whichever_call_has_it(name: str, tmp_path: Path) -> None:
    for call, error, found in trials(name, tmp_path, DEFINITE):
        if name in READERS:
            continue  # they raise: the caller needs the reason
        assert not isinstance(found, OSError), f"{call}: {error} was raised: {found}"


def _is_gone(call: str, error: str) -> bool:
    """Whether the log is not there, again and again: that is no error, but the lack of a log."""
    return error in GONE and call.endswith(" on")


def test_nothing_unread_is_a_success(tmp_path: Path) -> None:
    for call, error, found in trials("judge", tmp_path, (*DEFINITE, "ENOTDIR", "EPERM")):
        assert isinstance(found, Verdict), call
        if found.reason.state is State.COMPLETED:
            by_log = found.evidence is Evidence.SOLVER_LOG
            assert by_log or _is_gone(call, error), f"{call}: {error} became {found}"
        else:
            assert (found.reason, found.evidence) == (Reason.UNVERIFIED, Evidence.EXIT_CODE)


def test_a_solve_that_did_not_end_is_no_success_for_any_error(tmp_path: Path) -> None:
    unfinished = "[info] Project:p, S1 : [PROFILE] Adaptive Pass 1 : F\n"
    for call, error, found in trials("judge", tmp_path, DEFINITE, unfinished):
        assert isinstance(found, Verdict)
        assert found.reason.state is State.FAILED or _is_gone(call, error), f"{call}: {error}"


@pytest.fixture
def other_account() -> Iterator[None]:
    """Make the test an account that is not root."""
    if os.getuid() != 0:
        pytest.skip("only root can take on another account")
    os.setresuid(-1, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(-1, 0, 0)


@pytest.mark.needs_root
def test_a_folder_of_logs_that_another_account_closed_proves_nothing(tmp_path: Path, request: Any) -> None:
    folder = make(tmp_path / "x")
    (folder / "p.aedb.batchinfo").chmod(0o700)
    for parent in (folder, tmp_path, *tmp_path.parents[:-2]):
        parent.chmod(0o755)
    request.getfixturevalue("other_account")
    found = verdict(folder)
    assert (found.reason.state, found.reason) == (State.FAILED, Reason.UNVERIFIED)
    assert "cannot be read: Permission denied" in found.message
