"""The batch script of Windows HPC as a parser of PowerShell reads it; no PowerShell was at hand to run it.

The parser is tree-sitter's. It does not know that PowerShell takes typographic quotes for plain ones; that is checked
by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import tree_sitter_powershell
from edbjobs.config import SchedulerOptions
from edbjobs_server.core.runs import RunKey
from edbjobs_server.executors.base import Allocation, RunSpec
from edbjobs_server.executors.cluster.script import Scripts, SiteLines
from edbjobs_server.solver.command_line import MACHINES, SCRATCH, SPAWN
from hypothesis import given, settings
from hypothesis import strategies as st
from tree_sitter import Language, Node, Parser

PARSER = Parser(Language(tree_sitter_powershell.language()))
QUOTES = "'\u2018\u2019\u201a\u201b"
LITERAL = "verbatim_string_characters"

NASTY = st.sampled_from(
    ["'", *QUOTES, '"', "\u201c", "`", "$(Get-Date)", "$env:X", "@'", "'@", "#", "#>", "<#", "{{ 7 }}", "{%", "\\",
     "\u2028", "\x85", "ü", " ", ";", "|", "&", "(", ")", "{", "}", "-ng", MACHINES, SCRATCH, "@(", "%", "//",
     ",", "\u2013"]
)  # fmt: skip
PLAIN = st.characters(exclude_categories=("Cc", "Cs"))
TEXT = st.lists(st.one_of(NASTY, st.text(PLAIN, max_size=5)), max_size=6).map("".join)
OPTIONS = ("-machinelist", MACHINES, "-batchoptions", f"'TempDirectory'='{SCRATCH}' 'A'='{SPAWN}'")


@dataclass
class Job:
    """What of a job gets into its script."""

    arguments: Sequence[str] = ()
    values: Sequence[str] = ()
    directives: Sequence[str] = ("Priority=2",)
    program: str = "C:\\AnsysEM\\ansysedt.exe"
    cwd: str = "\\\\fs\\projects"
    folder: str = "\\\\fs\\runs\\7.1"
    news: str = "\\\\fs\\news\\7.1"
    nodes: int = 1
    gpus: int = 0
    site: SiteLines = field(default_factory=SiteLines)

    def script(self) -> str:
        options = SchedulerOptions(nodes=self.nodes, gpus_per_node=self.gpus)
        allocation = Allocation("edb-j-0123456789abcdef-1", "edbjobs:u:ann", nodes=self.nodes, options=options)
        additions = {f"ANS_{number}": value for number, value in enumerate(self.values)}
        argv = [self.program, *OPTIONS, *self.arguments]
        env = {"LANG": "de_DE.UTF-8", **additions}
        spec = RunSpec(RunKey(7, "u7", 1), argv, self.cwd, env, additions=additions, allocation=allocation)
        return Scripts(None, self.site).render("windows_hpc.ps1.j2", spec, self.directives, self.folder, self.news)

    def texts(self) -> list[str]:
        """All that must arrive as it is."""
        return [*self.arguments, *self.values, self.program, self.cwd, self.folder, self.news]


def nodes(text: str) -> Iterator[Node]:
    """All nodes of the tree, from the root down, which must be without fault."""
    waiting = [PARSER.parse(text.removeprefix("\ufeff").encode()).root_node]
    while waiting:
        node = waiting.pop()
        assert not node.is_error, (node.start_point, node.text)
        assert not node.is_missing, (node.start_point, node.type)
        yield node
        waiting += reversed(node.children)


def value(node: Node) -> str:
    """What a literal stands for: each quote in it is there twice."""
    assert node.text is not None
    inner = node.text.decode()[1:-1]
    pairs = re.findall(f"[{QUOTES}]+", inner)
    assert all(len(pair) % 2 == 0 for pair in pairs), inner
    return re.sub(f"([{QUOTES}])[{QUOTES}]", r"\1", inner)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("gpus", [0, 2])
@pytest.mark.parametrize("site", [SiteLines(), SiteLines(("Import-Module Site",), "$env:TEMP")], ids=["plain", "site"])
def test_it_is_powershell(count: int, gpus: int, site: SiteLines) -> None:
    text = Job(nodes=count, gpus=gpus, site=site).script()
    assert text.startswith("\ufeff")
    assert "\n" not in text.replace("\r\n", "")
    assert sum(1 for _ in nodes(text)) > 500


def test_a_fault_would_be_seen() -> None:
    for broken in ("if (", "$x = 'a", "$x = ('a' 'b'"):
        with pytest.raises(AssertionError):
            list(nodes(broken))


JOBS: Any = st.builds(
    Job,
    arguments=st.lists(TEXT.filter(lambda text: text not in OPTIONS), max_size=4),
    values=st.lists(TEXT, max_size=3),
    directives=st.lists(TEXT, max_size=3),
    program=TEXT.map(lambda text: f"C:\\{text}\\ansysedt.exe"),
    cwd=TEXT.map(lambda text: f"\\\\fs\\{text}"),
    folder=TEXT.map(lambda text: f"\\\\fs\\runs{text}"),
    news=TEXT.map(lambda text: f"\\\\fs\\news{text}"),
    nodes=st.integers(1, 3),
    gpus=st.integers(0, 2),
    site=st.sampled_from([SiteLines(), SiteLines(("$x = 1",), "$env:TEMP")]),
)


@settings(max_examples=60, deadline=None)
@given(JOBS)
def test_every_text_of_a_job_stands_in_one_literal(job: Job) -> None:
    tree = list(nodes(job.script()))
    known = [value(node) for node in tree if node.type == LITERAL]
    assert not set(job.texts()) - set(known)
    # The same job with harmless texts gives the same tree: nothing in the texts became anything else.
    harmless = Job(
        ["a"] * len(job.arguments), ["a"] * len(job.values), ["a"] * len(job.directives),
        nodes=job.nodes, gpus=job.gpus, site=job.site,
    )  # fmt: skip
    assert [node.type for node in tree] == [node.type for node in nodes(harmless.script())]


def test_the_language_of_this_host_is_not_the_nodes() -> None:
    assert "LANG" not in Job().script()


def test_what_only_the_node_knows_is_put_in_by_the_script() -> None:
    text = Job().script()
    assert "    ('' + $edbjobs_machines + '')" in text
    assert "('''TempDirectory''=''' + $edbjobs_scratch + ''' ''A''=''' + $edbjobs_spawn + '''')" in text
