"""Batch scripts of clusters, made from templates that a site may replace by its own.

The templates are in ``executors/templates``; a file of the same name in a folder of the site comes first. They get:

================  =====================================================================================
``title``         a line for people: job, run and attempt
``directives``    lines for the scheduler, without their prefix: ``#SBATCH --``, ``#BSUB``, ``#PBS``
``folder``        folder of the run; ``news``: the file to make when something was written into it
``program``       what to run; ``root``: the folder it is in
``arguments``     for the filters ``sh_pieces`` and ``ps_pieces``: they insert the script's variables for `MACHINES`,
                  `SPAWN` and `SCRATCH`
``cwd``, ``env``  where it starts, and what is added to its environment
``allocation``    an `Allocation`; ``nodes``, ``cores``, ``tasks``, ``gpus``: what AEDT may use, each node
``automatic``     AEDT chooses the tasks
``site``          a `SiteLines`
``beat``          seconds between two heartbeats
================  =====================================================================================

Every value of a job goes through ``sh`` (a word of the shell), ``ps`` (a text of PowerShell) or
``comment_safe``. A comment of a template starts with ``{##``, because ``${#name}`` is the shell's.
"""

from __future__ import annotations

import itertools
import re
import shlex
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import jinja2

from edbjobs_server.core.errors import Refused
from edbjobs_server.executors.base import RunSpec
from edbjobs_server.executors.cluster.record import BEAT_SECONDS, DUPLICATE_CODE, REFUSAL_CODE
from edbjobs_server.solver.command_line import MACHINES, SCRATCH, SPAWN

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
POWERSHELL = ".ps1.j2"

_VARIABLES = {MACHINES: "edbjobs_machines", SPAWN: "edbjobs_spawn", SCRATCH: "edbjobs_scratch"}
_PLACEHOLDER = re.compile("(" + "|".join(map(re.escape, _VARIABLES)) + ")")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USUAL_UMASK = 0o022
_LOCALE = ("LANG", "LC_ALL")
_BOM = "\ufeff"
# PowerShell takes typographic quotes for plain ones.
_PS_QUOTE = re.compile("(['\u2018\u2019\u201a\u201b])")


class ScriptError(Exception):
    """A template cannot be used; the text names its file and line."""


@dataclass(frozen=True, slots=True)
class SiteLines:
    """What an administrator adds to every script.

    Attributes
    ----------
    setup : tuple of str
        Lines of the shell such as ``module load``, put in as they are.
    scratch : str
        Folder for scratch files on the nodes; may hold ``$VARIABLES`` of the node. Every run gets a folder of its
        own in it, which goes with the run. Empty: as AEDT is set up.
    """

    setup: tuple[str, ...] = ()
    scratch: str = ""


class _FirstFolder(jinja2.FileSystemLoader):
    """Templates of the first folder that has them; one that is put there later is found as well."""

    def get_source(self, environment: jinja2.Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        """Read a template; jinja2 itself would keep what it found in a later folder."""
        source, path, is_current = super().get_source(environment, template)

        def is_first() -> bool:
            found = [Path(folder, template) for folder in self.searchpath]
            return next((file for file in found if file.exists()), None) == Path(path) and is_current()

        return source, path, is_first


class Scripts:
    """Makes batch scripts.

    Parameters
    ----------
    templates : Path or None
        The site's own templates; None: only ours.
    site : SiteLines
        What is added to every script.
    beat : float
        Seconds between two heartbeats.
    """

    def __init__(self, templates: Path | None, site: SiteLines, beat: float = BEAT_SECONDS) -> None:
        self._site = site
        self._beat = beat
        folders = [str(folder) for folder in (templates, TEMPLATES) if folder is not None]
        self._environment = jinja2.Environment(
            loader=_FirstFolder(folders),
            undefined=jinja2.StrictUndefined,
            autoescape=False,  # noqa: S701 - a script is no HTML; `sh` and `ps` quote
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            comment_start_string="{##",
            comment_end_string="##}",
        )
        self._environment.filters.update(
            sh=shlex.quote, sh_pieces=_sh_pieces, ps=_ps, ps_pieces=_ps_pieces, comment_safe=_comment_safe
        )

    def render(self, template: str, spec: RunSpec, directives: Sequence[str], folder: str, news: str) -> str:
        """Make the script of a run.

        Parameters
        ----------
        template : str
            File name such as ``slurm.sh.j2``.
        spec : RunSpec
            With its allocation; its program, arguments and folder are as the nodes see them.
        directives : sequence of str
            Lines for the scheduler, without their prefix.
        folder, news : str
            Folder of the run, and the file to make when something was written into it, as the nodes see them.

        Returns
        -------
        str
            To be written as UTF-8 with ``surrogateescape``, as `record.prepare` does.

        Raises
        ------
        Refused
            INVALID_JOB: a text with a line break or another control character, which no script may hold.
        ScriptError
            The template is missing or wrong.
        """
        _check(spec, directives, folder, news)
        windows = template.endswith(POWERSHELL)
        # What language this host speaks means nothing to Windows.
        language = {} if windows else {name: spec.env[name] for name in _LOCALE if name in spec.env}
        values = self._values(spec) | {"directives": list(directives), "folder": folder, "news": news}
        values["umask"] = f"{_USUAL_UMASK if spec.umask is None else spec.umask:03o}"
        values["env"] = language | dict(spec.additions)
        program = str(spec.argv[0])
        root = str((PureWindowsPath if windows else PurePosixPath)(program).parent)
        try:
            text = self._environment.get_template(template).render(**values, program=program, root=root)
        except (
            jinja2.TemplateError,
            ArithmeticError,
            AttributeError,
            LookupError,
            OSError,
            TypeError,
            ValueError,
        ) as e:
            raise ScriptError(_where(e, template)) from e
        # Without the mark Windows PowerShell would read it in the node's own code page.
        return _BOM + text.replace("\n", "\r\n") if windows else text

    def _values(self, spec: RunSpec) -> dict[str, object]:
        allocation = spec.allocation
        assert allocation is not None, "a run on a cluster asks for something"
        automatic = "-auto" in spec.argv
        key = spec.key
        return {
            "title": f"edbjobs: {allocation.name}, run {key.seq}.{key.attempt} of job {key.uid}",
            "arguments": _arguments(spec.argv),
            "cwd": spec.cwd,
            "allocation": allocation,
            "nodes": allocation.nodes,
            "cores": allocation.known_cores,
            "tasks": -1 if automatic else allocation.tasks_per_node,
            "gpus": allocation.options.gpus_per_node or 0,
            "automatic": automatic,
            "site": self._site,
            "beat": self._beat,
            "duplicate_code": DUPLICATE_CODE,
            "refusal_code": REFUSAL_CODE,
        }


def _arguments(argv: Sequence[str]) -> list[list[str]]:
    """Split arguments into texts and placeholders (every second piece); only our own options may contain those."""
    split: list[list[str]] = []
    for before, argument in itertools.pairwise(argv):
        if before in ("-machinelist", "-batchoptions"):
            split.append(_PLACEHOLDER.split(argument))
        else:
            split.append([argument])
    return split


def _sh_pieces(pieces: Sequence[str]) -> str:
    if len(pieces) == 1:
        return shlex.quote(pieces[0])
    words = [f'"${_VARIABLES[piece]}"' if odd % 2 else piece and shlex.quote(piece) for odd, piece in enumerate(pieces)]
    return "".join(words)


def _ps(text: str) -> str:
    return "'" + _PS_QUOTE.sub(r"\1\1", text) + "'"


def _ps_pieces(pieces: Sequence[str]) -> str:
    words = [f"${_VARIABLES[piece]}" if odd % 2 else _ps(piece) for odd, piece in enumerate(pieces)]
    return "(" + " + ".join(words) + ")"


def _comment_safe(text: str) -> str:
    return " ".join(_CONTROL.sub(" ", text).split())


def _check(spec: RunSpec, directives: Sequence[str], folder: str, news: str) -> None:
    additions: Mapping[str, str] = spec.additions
    texts = {
        **{f"argument {number}": argument for number, argument in enumerate(spec.argv)},
        **{f"config.environment[{name}]": value for name, value in additions.items()},
        **{name: spec.env[name] for name in _LOCALE if name in spec.env},
        **{f"directive {number}": line for number, line in enumerate(directives, 1)},
        "project_path": spec.cwd,
        "folder of the run": folder,
        "folder of news": news,
        "allocation": spec.allocation.name if spec.allocation is not None else "",
    }
    wrong = {name: "has a line break or another control character" for name, x in texts.items() if _CONTROL.search(x)}
    wrong.update({f"config.environment[{n}]": "is no variable's name" for n in additions if not _NAME.fullmatch(n)})
    if wrong:
        text = "; ".join(f"{name}: {what}" for name, what in wrong.items())
        raise Refused("INVALID_JOB", f"no batch script can be made: {text}", fields=wrong)


def _where(error: Exception, template: str) -> str:
    """Say what is wrong with a template, and where: the last line of a template that was at work."""
    if isinstance(error, jinja2.TemplateNotFound):
        return f"template {error.name} is missing"
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{error.filename or error.name}, line {error.lineno}: {error.message}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".j2")]
    if not frames:
        return f"template {template}: {error}"
    return f"{frames[-1].filename}, line {frames[-1].lineno}: {error}"
