"""Results beside a project: whether there are some, and their removal where a job asks for it. May block.

As in `edbjobs_server.solver.project`, an `OSError` that is raised is a transient one.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from edbjobs.config import ExistingResults

from edbjobs_server.core.errors import Refused
from edbjobs_server.solver.project import Project, key_of
from edbjobs_server.util import files
from edbjobs_server.util.files import is_transient, text_of

RESULTS = (".aedtresults", ".aedbresults")  # beside the project, by its name without suffix


class ResultsExist(Refused):
    """Earlier results keep a job from its start; no call is answered with it."""

    def __init__(self, text: str, wrong: str) -> None:
        super().__init__("INVALID_JOB", text, fields={"config.existing_results": wrong})


def results_exist(project: Project) -> tuple[Path, ...]:
    """Return the results beside the project.

    Raises
    ------
    ResultsExist
        The folder of the results cannot be read.
    OSError
        A transient one.
    """
    return tuple(folder for folder, _ in _results(project.key))


def refuse_results(project: Project, existing_results: ExistingResults) -> None:
    """Refuse to solve a project with results, if the job asks for that.

    Raises
    ------
    ResultsExist
        There are some.
    OSError
        A transient one.
    """
    if existing_results is not ExistingResults.REFUSE:
        return
    found = results_exist(project)
    if found:
        raise ResultsExist(
            f"{found[0]} exists and the job asks to leave results alone (existing_results); move it away, or submit "
            "with CLEAR to remove it or KEEP to solve on top of it",
            "results exist",
        )


def clear_results(path: str | Path) -> tuple[Path, ...]:
    """Remove a project's results, just before a run that asks for it: the folders of `RESULTS`, nothing else.

    Logs and ``.q.completed`` of earlier runs stay: a run is judged only by files of its own name.

    Parameters
    ----------
    path : path
        Real path of the project.

    Returns
    -------
    tuple of Path
        What was removed.

    Raises
    ------
    ResultsExist
        A symbolic link stands there, and what it leads to may be others' data, so it is not followed;
        or they may not be removed.
    OSError
        A transient one; some of the results may be gone.
    """
    found = _results(key_of(os.fspath(path)))
    for folder, mode in found:
        if not stat.S_ISDIR(mode):
            raise _cannot_clear(f"{folder} is a link or no folder, so it is not removed")
    for folder, _ in found:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue  # removed concurrently
        except OSError as error:
            if is_transient(error):
                raise
            raise _cannot_clear(f"{folder} cannot be removed: {text_of(error)} ({error.filename})") from error
    return tuple(folder for folder, _ in found)


def _results(key: str) -> list[tuple[Path, int]]:
    """Return the existing results, each with its mode."""
    found: list[tuple[Path, int]] = []
    for suffix in RESULTS:
        folder = Path(key + suffix)
        try:
            mode = files.mode_of(folder, follow=False)
        except OSError as error:
            if is_transient(error):
                raise
            raise _cannot_clear(f"{folder} may exist, but its status cannot be read: {text_of(error)}") from error
        if mode is not None:
            found.append((folder, mode))
    return found


def _cannot_clear(text: str) -> ResultsExist:
    return ResultsExist(f"{text}; remove it yourself, or submit with KEEP", "results cannot be removed")
