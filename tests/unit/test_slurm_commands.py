"""What the adapter concludes from its commands' answers, given by programs that answer as told."""

from __future__ import annotations

from pathlib import Path

import pytest
from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.schedulers.base import Phase, Submission, SubmitRefused, Unreachable
from edbjobs_server.executors.schedulers.slurm import Slurm

NAME = "edb-a-0123456789abcdef-1"
ROW = f"7|RUNNING|1|2|3|n1|None|{NAME}|\n"
UNKNOWN = "slurm_load_jobs error: Invalid job id specified"
DOWN = "Unable to contact slurm controller (connect failure)"


class Fakes:
    """Programs that print what they are told to, and write down how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        self.slurm = Slurm({"PATH": f"{folder}:/usr/bin:/bin"}, deadline=10)

    def answer(self, program: str, stdout: str = "", stderr: str = "", code: int = 0, last: str = "") -> None:
        """Make a program; with `last`, it answers so only if that is its last argument, else with 0 and nothing."""
        stem = f"{program}.{last}" if last else program
        (self.folder / f"{stem}.out").write_text(stdout)
        (self.folder / f"{stem}.err").write_text(stderr)
        (self.folder / f"{stem}.code").write_text(str(code))
        script = self.folder / program
        script.write_text(
            f'#!/bin/sh\ncd {self.folder}\necho "{program} $*" >>calls\nfor word; do :; done\n'
            f'stem={program}; [ -e "{program}.$word.out" ] && stem="{program}.$word"\n'
            'cat "$stem.out"; cat "$stem.err" >&2; exit "$(cat "$stem.code")"\n'
        )
        script.chmod(0o755)

    async def submit(self) -> str:
        script = self.folder / "s.sh"
        return await self.slurm.submit(
            Submission(Allocation(NAME, "c"), script, self.folder / "o", self.folder, {"PATH": "/usr/bin:/bin"})
        )


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    made = Fakes(tmp_path)
    for program in ("scontrol", "squeue", "sacct", "sbatch", "scancel"):
        made.answer(program)
    return made


@pytest.mark.parametrize(("stdout", "id"), [("7\n", "7"), ("7;dev\n", "7"), ("a site's greeting\n7\n", "7")])
async def test_submitted(fakes: Fakes, stdout: str, id: str) -> None:
    fakes.answer("sbatch", stdout)
    assert await fakes.submit() == id


@pytest.mark.parametrize(
    ("stdout", "stderr", "code"),
    [
        ("", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", 1),
        ("", f"sbatch: error: Batch job submission failed: {DOWN}", 1),
        ("", "", 0),
        ("not a number\n", "", 0),
        ("7\n", "sbatch: error: something", 1),
    ],
)
async def test_nobody_knows_whether_it_was_submitted(fakes: Fakes, stdout: str, stderr: str, code: int) -> None:
    fakes.answer("sbatch", stdout, stderr, code)
    with pytest.raises(Unreachable):
        await fakes.submit()


async def test_an_sbatch_that_was_killed_may_have_submitted(fakes: Fakes) -> None:
    (fakes.folder / "sbatch").write_text("#!/bin/sh\nkill -9 $$\n")
    with pytest.raises(Unreachable):
        await fakes.submit()


@pytest.mark.parametrize("code", [1, 255])
async def test_refused_in_slurms_words(fakes: Fakes, code: int) -> None:
    fakes.answer("sbatch", "", "sbatch: error: Invalid account or account/partition combination specified", code)
    with pytest.raises(SubmitRefused, match="Invalid account"):
        await fakes.submit()


async def test_an_answer_that_cannot_be_read_whole_is_no_search(fakes: Fakes) -> None:
    fakes.answer("squeue", ROW + "8|RUNN")
    with pytest.raises(Unreachable):
        await fakes.slurm.find(NAME)
    assert list(await fakes.slurm.poll()) == ["7"], "in a poll it only says nothing"
    fakes.answer("squeue")
    fakes.answer("sacct", "7|COMPLE")
    with pytest.raises(Unreachable):
        await fakes.slurm.find(NAME)


async def test_a_search_needs_the_accounting_where_there_is_one(fakes: Fakes) -> None:
    fakes.answer("sacct", "", "sacct: error: slurm_persist_conn_open: failed to connect", 1)
    with pytest.raises(Unreachable):
        await fakes.slurm.find(NAME)
    fakes.answer("sacct", "", "Slurm accounting storage is disabled", 1)
    assert await fakes.slurm.find(NAME) == []
    assert await fakes.slurm.find(NAME) == []
    assert fakes.calls.read_text().count("sacct ") == 2, "that it is disabled is remembered"


async def test_the_queue_counts_more_than_the_accounting(fakes: Fakes) -> None:
    fakes.answer("squeue", ROW)
    fakes.answer("sacct", f"7|PENDING|0:0|1|Unknown|Unknown|None assigned|{NAME}\n6|COMPLETED|0:0|1|2|3|n1|{NAME}\n")
    found = {seen.id: seen.phase for seen in await fakes.slurm.find(NAME)}
    assert found == {"7": Phase.RUNNING, "6": Phase.ENDED}


async def test_unknown_jobs_are_looked_for_in_the_accounting(fakes: Fakes) -> None:
    fakes.answer("scontrol", "", UNKNOWN, 1)
    fakes.answer("sacct", f"7|FAILED|3:0|1|2|3|n1|{NAME}\n8|RUNNING|0:0|1|2|Unknown|n1|{NAME}\n")
    seen = await fakes.slurm.look(["7", "8", "9"])
    assert seen["7"] is not None
    assert (seen["7"].ending, seen["7"].exit_code) == (Ending.EXITED, 3)
    assert seen["8"] is None, "the controller does not know it: its row never changes"
    assert seen["9"] is None


@pytest.mark.parametrize(("stdout", "code"), [("", 1), ("9|COMP", 0)])
async def test_where_the_accounting_fails_nothing_is_known(fakes: Fakes, stdout: str, code: int) -> None:
    fakes.answer("scontrol", "", UNKNOWN, 1)
    fakes.answer("sacct", stdout, "sacct: error: Connection refused" if code else "", code)
    assert await fakes.slurm.look(["7"]) == {}


async def test_one_silence_makes_the_whole_look_useless(fakes: Fakes) -> None:
    fakes.answer("scontrol", "", UNKNOWN, 1)
    fakes.answer("scontrol", "", f"slurm_load_jobs error: {DOWN}", 1, last="8")
    with pytest.raises(Unreachable, match="contact"):
        await fakes.slurm.look(["7", "8", "9"])


async def test_a_garbled_look_says_nothing(fakes: Fakes) -> None:
    fakes.answer("scontrol", f"JobId=7 JobName={NAME} JobState=COMPL")
    assert await fakes.slurm.look(["7"]) == {}
    fakes.answer("scontrol")
    assert await fakes.slurm.look(["7"]) == {}, "an empty answer is no answer"


async def test_scancel(fakes: Fakes) -> None:
    fakes.answer("scancel", "", "scancel: error: Kill job error on job id 6: Invalid job id specified", 1)
    await fakes.slurm.cancel(["6", "7", "7", "-u", "root", ""], kill=True)
    assert fakes.calls.read_text() == "scancel --full --signal=KILL 6 7\nscancel 6 7\n"
    fakes.answer("scancel", "", f"scancel: error: Kill job error on job id 6: {DOWN}", 8)
    with pytest.raises(Unreachable, match="contact"):
        await fakes.slurm.cancel(["6"])


async def test_many_are_cancelled_in_few_commands(fakes: Fakes) -> None:
    await fakes.slurm.cancel([str(number) for number in range(1200)])
    assert fakes.calls.read_text().count("scancel ") == 3


@pytest.mark.parametrize(
    ("stdout", "up"),
    [
        ("Slurmctld(primary) at vm is UP\n", True),
        ("Slurmctld(primary) at a is DOWN\nSlurmctld(backup) at b is UP\n", True),
        ("Slurmctld(primary) at vm is DOWN\n***\n", False),
        ("", False),
    ],
)
async def test_probe(fakes: Fakes, stdout: str, up: bool) -> None:
    fakes.answer("scontrol", "slurm-wlm 22.05.8\n")
    fakes.answer("scontrol", stdout, code=0 if up else 1, last="ping")
    if up:
        assert [await fakes.slurm.probe(), await fakes.slurm.probe()] == ["22.05.8", "22.05.8"]
        assert fakes.calls.read_text().count("--version") == 1
    else:
        with pytest.raises(Unreachable):
            await fakes.slurm.probe()


@pytest.mark.parametrize(
    ("path", "pattern"), [("/d/a b/o", "/d/a b/o"), ("/d/100%/o", "/d/100%%/o"), ("/d/a\\%j/o", "/d/a\\\\%j/o")]
)
def test_no_pattern_in_the_name_of_the_output(fakes: Fakes, path: str, pattern: str) -> None:
    submission = Submission(Allocation(NAME, "c"), Path("/d/s.sh"), Path(path), Path("/w"), {})
    assert list(fakes.slurm.submit_command(submission)) == [
        *("sbatch", "--parsable", "--chdir=/w", f"--output={pattern}", f"--error={pattern}", "/d/s.sh")
    ]
