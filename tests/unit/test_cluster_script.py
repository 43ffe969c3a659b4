"""No text of a job becomes anything else in a batch script, and a site's own templates are taken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from edbjobs_server.core.errors import Refused
from edbjobs_server.executors.cluster import record
from edbjobs_server.executors.cluster.script import TEMPLATES, ScriptError, Scripts, SiteLines
from edbjobs_server.solver.command_line import MACHINES, SCRATCH
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.cluster_script import SCHEDULERS, Bench

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="batch scripts run on Linux nodes")

# All that a job may say, and more: a text that the shell, a scheduler or Jinja would act on stands as good a chance.
NASTY = st.sampled_from(
    ["'", '"', "$(touch gone)", "`touch gone`", "${HOME}", "\\", "#BSUB -n 9", "{{ 7 * 7 }}", "{% if %}", "{##", "%",
     "\u2028", "\udcff", "ü", " ", "~", "*", "!", "-machinelist", MACHINES, SCRATCH, "&", ";", "|", ">f", "}", "EOF"]
)  # fmt: skip
PLAIN = st.characters(exclude_categories=("Cc", "Cs"))
TEXT = st.lists(st.one_of(NASTY, st.text(PLAIN, max_size=5)), max_size=6).map("".join)
CONTROL = st.sampled_from([chr(code) for code in (*range(32), 127)])


def windows(bench: Bench) -> str:
    return Scripts(None, bench.site).render(
        "windows_hpc.ps1.j2", bench.spec(), ["x"], str(bench.folder), str(bench.news)
    )


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("site", [SiteLines(), SiteLines(("module load x",), "$TMPDIR")], ids=["plain", "site"])
@on_linux
def test_it_is_bash(tmp_path: Path, scheduler: str, site: SiteLines) -> None:
    text = Bench(tmp_path, scheduler, site=site, additions={"ANS_X": "1"}).text()
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("scheduler", "prefix"), [("slurm", "#SBATCH --"), ("lsf", "#BSUB "), ("pbs", "#PBS ")])
def test_directives_stand_first(tmp_path: Path, scheduler: str, prefix: str) -> None:
    lines = Bench(tmp_path, scheduler).text(["nodes=2", "comment='a b'"]).splitlines()
    assert lines[0] == "#!/bin/bash"
    assert lines[1] == "# edbjobs: edb-j1-0123456789abcdef-1, run 7.1 of job u7"
    own = [f"{prefix}-S /bin/bash"] if scheduler == "pbs" else []
    assert lines[2 : 5 + len(own)] == [*own, f"{prefix}nodes=2", f"{prefix}comment='a b'", "{"]
    assert not any(line.startswith(prefix) for line in lines[5 + len(own) :])
    assert lines[-1] == "}"


@on_linux
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    scheduler=st.sampled_from(SCHEDULERS),
    arguments=st.lists(TEXT, max_size=5),
    values=st.lists(TEXT, max_size=3),
    language=TEXT,
    folder=TEXT.filter(lambda text: "/" not in text and len(os.fsencode(text)) < 80),
)
def test_every_text_arrives_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory,
    scheduler: str,
    arguments: list[str],
    values: list[str],
    language: str,
    folder: str,
) -> None:
    root = tmp_path_factory.mktemp("run")
    options = [argument for argument in arguments if argument not in ("-machinelist", "-batchoptions")]
    additions = {f"ANS_{number}": value for number, value in enumerate(values)}
    shows = 'say() { printf "%s\\0" "$1"; }; for text in "$@"; do say "$text"; done; '
    shows += 'for name in ${!ANS_@} LANG; do say "${!name}"; done; printf "%s" "$PWD"'
    bench = Bench(root, scheduler, shows, options, additions, {"LANG": language})
    bench.cwd = root / f"at{folder}"
    bench.cwd.mkdir()
    code, err = bench.run()
    assert code == 0, err
    expected = [*options, *additions.values(), language, str(bench.cwd)]
    assert (bench.folder / "stdout").read_bytes() == b"\0".join(map(os.fsencode, expected))
    assert not list(bench.cwd.iterdir())


@given(text=st.tuples(TEXT, CONTROL, TEXT).map("".join), place=st.sampled_from(["argument", "value", "cwd", "locale"]))
def test_a_line_break_is_refused_everywhere(tmp_path_factory: pytest.TempPathFactory, text: str, place: str) -> None:
    bench = Bench(tmp_path_factory.mktemp("run"))
    if place == "argument":
        bench.arguments = [text]
    elif place == "value":
        bench.additions = {"ANS_X": text}
    elif place == "locale":
        bench.env = {"LC_ALL": text}
    else:
        bench.cwd = Path("/" + text)
    with pytest.raises(Refused, match="line break") as refused:
        bench.text()
    assert refused.value.reason == "INVALID_JOB"


def test_a_directive_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="directive 2"):
        Bench(tmp_path).text(["-N 1", "--comment=a\n#SBATCH -N 9"])


@pytest.mark.parametrize("name", ["", "A B", "A=1;x", "1A", "A$(id)", "Ä"])
def test_a_variables_name_is_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match="variable's name"):
        Bench(tmp_path, additions={name: "1"}).text()


def test_placeholders_count_only_where_we_put_them(tmp_path: Path) -> None:
    arguments = ("-machinelist", MACHINES, "-batchsolve", f"/data/{MACHINES}.aedt")
    text = Bench(tmp_path, arguments=arguments).text()
    assert """ -machinelist "$edbjobs_machines" -batchsolve /data/@edbjobs:machines@.aedt\n""" in text


# The site's own -----------------------------------------------------------------------------------------------


@on_linux
def test_a_site_may_replace_a_template_and_use_the_rest_of_ours(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    ours = (TEMPLATES / "slurm.sh.j2").read_text()
    (own / "slurm.sh.j2").write_text(ours.replace("{##", "").replace("#!/bin/bash\n", "#!/bin/bash\n# ours\n"))
    bench = Bench(tmp_path, templates=own)
    assert "# ours\n" in bench.text()
    assert bench.run()[0] == 0
    assert bench.read().exit is not None
    assert "# ours\n" not in Bench(tmp_path, "pbs", templates=own).text()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("#!/bin/bash\n{% if %}\n", "line 2"),
        ("#!/bin/bash\n\n{{ nothing.like_it }}\n", "line 3"),
        ("#!/bin/bash\n{{ gpus.x.y }}\n", "line 2"),
        ("#!/bin/bash\n{{ 1 // 0 }}\n", "line 2"),
        ("#!/bin/bash\n{{ directives | nofilter }}\n", "line 2"),
        ('#!/bin/bash\n{% include "nowhere" %}\n', "nowhere is missing"),
    ],
)
def test_what_is_wrong_in_a_template_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "slurm.sh.j2").write_text(text)
    with pytest.raises(ScriptError, match=told) as error:
        Bench(tmp_path, templates=tmp_path).text()
    assert "missing" in told or str(tmp_path / "slurm.sh.j2") in str(error.value)


def test_a_template_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match=r"other\.sh\.j2 is missing"):
        Bench(tmp_path, "other").text()


def test_a_template_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "slurm.sh.j2").write_bytes(b"#!/bin/bash\n\xff\xfe\n")
    with pytest.raises(ScriptError, match=r"slurm\.sh\.j2"):
        Bench(tmp_path, templates=tmp_path).text()


# Windows HPC ----------------------------------------------------------------------------------------------------


def test_windows_text_is_quoted_for_powershell(tmp_path: Path) -> None:
    arguments = ("-machinelist", MACHINES, "-batchoptions", f"'T'='{SCRATCH}'", "it's \u2018so\u2019 $(x) `n")
    bench = Bench(tmp_path, arguments=arguments, additions={"ANS_X": "a'; b"}, hosts=("n1", "n2"))
    text = windows(bench)
    assert text.startswith("\ufeff")
    assert "\r\n" in text
    assert "\n" not in text.replace("\r\n", "")
    assert "$env:ANS_X = 'a''; b'" in text
    assert "    ('' + $edbjobs_machines + '')" in text
    assert "    ('''T''=''' + $edbjobs_scratch + '''')" in text
    assert "    ('it''s \u2018\u2018so\u2019\u2019 $(x) `n')" in text
    assert f"exit {record.DUPLICATE_CODE}" in text
