"""The batch script under plain bash: one run whatever the scheduler does, and a record that tells the truth."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from edbjobs_server.executors.cluster import record
from edbjobs_server.executors.cluster.script import SiteLines
from support.cluster_script import BEAT, DEADLINE, SCHEDULERS, Bench, is_alive, members, session, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="batch scripts run on Linux nodes")

# Says that it is ready, then waits for a signal; TERM ends it with 7.
WAITS = 'trap "echo got TERM; exit 7" TERM; echo ready; while :; do sleep 0.05; done'


def ready(bench: Bench) -> None:
    stdout = bench.folder / "stdout"
    until(lambda: stdout.exists() and "ready" in stdout.read_text(), "the program is ready")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_success(tmp_path: Path, scheduler: str) -> None:
    before = int(time.time())
    bench = Bench(tmp_path, scheduler, 'pwd; umask; echo "to stderr" >&2; read -r line || echo "no input"')
    assert bench.run(job="41")[0] == 0
    found = bench.read()
    assert found.claim is not None
    assert (found.claim.kind, found.claim.job, found.claim.restart) == ("run", "41", 0)
    assert found.start is not None
    assert found.start.nodes == ("n1",)
    assert found.exit is not None
    assert (found.exit.code, found.exit.signal) == (0, "none")
    assert before <= found.claim.time <= found.start.time <= found.exit.time <= time.time() + 1
    assert found.beat is not None
    assert (found.signal, found.dups, found.refusal) == ("", (), "")
    assert bench.news.exists()
    assert (bench.folder / "stdout").read_text().splitlines() == [str(bench.cwd), "0022", "no input"]
    assert (bench.folder / "stderr").read_text() == "to stderr\n"


def test_the_record_is_for_its_account_alone_and_nothing_else_is_left(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run()
    names = {path.name for path in bench.folder.iterdir()}
    assert names == {"script", "claim", "start", "beat", "exit", "stdout", "stderr"}
    for path in [bench.folder, *bench.folder.iterdir()]:
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize(("program", "code"), [("exit 3", 3), ("kill -SEGV $$", 139), ("kill -KILL $$", 137)])
def test_the_exit_code_is_the_programs_own(tmp_path: Path, program: str, code: int) -> None:
    bench = Bench(tmp_path, program=program)
    assert bench.run()[0] == code
    found = bench.read()
    assert found.exit is not None
    assert (found.exit.code, found.exit.signal) == (code, "none")


def test_it_may_come_by_standard_input(tmp_path: Path) -> None:
    """LSF and PBS feed it to a shell: `$0` is no file, and nothing may eat the rest of it."""
    bench = Bench(tmp_path, program="cat; echo done", site=SiteLines(setup=("cat >/dev/null",)))
    record.prepare(bench.folder, bench.text())
    with (bench.folder / "script").open() as script:
        done = subprocess.run(["bash"], stdin=script, env=bench.environment(), timeout=DEADLINE, check=False)
    assert done.returncode == 0
    assert (bench.folder / "stdout").read_text() == "done\n"


def test_a_script_that_was_cut_off_does_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    script = record.prepare(bench.folder, bench.text()[:-30])
    done = subprocess.run(["bash", str(script)], env=bench.environment(), capture_output=True, check=False)
    assert done.returncode != 0
    assert bench.read() == record.Record()


# What cannot be run -------------------------------------------------------------------------------------------


def test_a_program_that_is_not_on_the_node(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.argv0.unlink()
    assert bench.run()[0] == record.REFUSAL_CODE
    found = bench.read()
    assert f"the program {bench.argv0} cannot be run on node {os.uname().nodename}" in found.refusal
    assert (found.start, found.exit) == (None, None)
    assert found.claim is not None
    assert bench.news.exists()


def test_a_project_that_is_not_to_be_seen(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.cwd.rmdir()
    assert bench.run()[0] == record.REFUSAL_CODE
    assert str(bench.cwd) in bench.read().refusal
    assert bench.read().start is None


def test_a_run_folder_that_is_not_there(tmp_path: Path) -> None:
    bench = Bench(tmp_path, program="touch ran")
    done = subprocess.run(["bash", "-c", bench.text()], env=bench.environment(), capture_output=True, check=False)
    assert done.returncode == record.REFUSAL_CODE
    assert b"must share it" in done.stderr
    assert not bench.folder.exists()
    assert not (bench.cwd / "ran").exists()


def test_a_folder_that_takes_no_claim(tmp_path: Path) -> None:
    """A full disk, or a folder that cannot be written: without a claim on disk nothing is run."""
    bench = Bench(tmp_path, program="touch ran")
    bench.folder.parent.mkdir(parents=True)
    bench.folder.write_text("a file")
    done = subprocess.run(["bash", "-c", bench.text()], env=bench.environment(), capture_output=True, check=False)
    assert done.returncode == record.REFUSAL_CODE
    assert not (bench.cwd / "ran").exists()


def test_a_start_that_cannot_be_written_lets_nothing_go(tmp_path: Path) -> None:
    bench = Bench(tmp_path, program="touch ran")
    (bench.folder / "start" / "in the way").mkdir(parents=True)
    bench.tool("mv", 'case "$*" in */start) exit 1 ;; esac; exec /bin/mv "$@"')
    assert bench.run()[0] == record.REFUSAL_CODE
    assert not (bench.cwd / "ran").exists()
    found = bench.read()
    assert found.exit is not None
    assert found.exit.code == record.REFUSAL_CODE


def test_the_folder_of_news_may_be_gone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.news.parent.rmdir()
    assert bench.run()[0] == 0
    assert bench.read().exit is not None


# Once ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_of_twins_at_the_same_moment_one_runs(tmp_path: Path, links: bool) -> None:
    bench = Bench(tmp_path, program="echo ran; sleep 0.5")
    if not links:
        bench.tool("ln", "exit 1")
    script = record.prepare(bench.folder, bench.text())
    gate = tmp_path / "gate"
    gate.touch()
    wait = f'while [ -e "{gate}" ]; do :; done; exec bash "{script}"'
    jobs = [str(number) for number in range(50, 58)]
    twins = [
        subprocess.Popen(["bash", "-c", wait], env=bench.environment(job), stderr=subprocess.DEVNULL) for job in jobs
    ]
    gate.unlink()
    codes = [twin.wait(DEADLINE) for twin in twins]
    assert sorted(codes) == [0] + [record.DUPLICATE_CODE] * 7
    assert (bench.folder / "stdout").read_text() == "ran\n"
    found = bench.read()
    assert found.claim is not None
    assert found.claim.job == jobs[codes.index(0)]
    assert {dup.job for dup in found.dups} == set(jobs) - {found.claim.job}


def test_a_link_that_was_made_but_reported_as_failed(tmp_path: Path) -> None:
    """NFS may repeat the request and hear that it is there already."""
    bench = Bench(tmp_path)
    bench.tool("ln", '/bin/ln "$@"; exit 1')
    assert bench.run()[0] == 0
    assert bench.read().dups == ()


def test_a_void_run_is_not_run(tmp_path: Path) -> None:
    bench = Bench(tmp_path, program="touch ran")
    assert record.void(bench.folder, time.time())
    assert bench.run()[0] == record.DUPLICATE_CODE
    found = bench.read()
    assert found.claim is not None
    assert found.claim.kind == "void"
    assert [(dup.job, dup.restart) for dup in found.dups] == [("41", 0)]
    assert (found.start, found.exit) == (None, None)
    assert bench.news.exists()
    assert not (bench.cwd / "ran").exists()


def test_a_run_that_has_begun_cannot_be_voided(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run()
    assert not record.void(bench.folder, time.time())
    assert bench.read().exit is not None


@pytest.mark.parametrize(("scheduler", "restarts"), [("slurm", 2), ("lsf", 1), ("pbs", 0)])
def test_a_requeued_job_is_not_run_again(tmp_path: Path, scheduler: str, restarts: int) -> None:
    bench = Bench(tmp_path, scheduler, "echo ran")
    bench.run()
    assert bench.run(restart=2)[0] == record.DUPLICATE_CODE
    assert [(dup.job, dup.restart) for dup in bench.read().dups] == [("41", restarts)]
    assert (bench.folder / "stdout").read_text() == "ran\n"


# Signals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to_all", [False, True], ids=["to the script alone", "to everything"])
@pytest.mark.parametrize("name", ["TERM", "INT", "USR2"])
def test_a_signal_goes_on_to_the_program(tmp_path: Path, name: str, to_all: bool) -> None:
    bench = Bench(tmp_path, program=WAITS.replace("TERM", name))
    with bench.started() as child:
        ready(bench)
        group = os.getpgid(bench.wait_start().pid)
        number = getattr(signal, f"SIG{name}")
        if to_all:
            os.killpg(child.pid, number)
            with suppress(ProcessLookupError):  # it may have been passed on, and have ended all, by now
                os.killpg(group, number)
        else:
            os.kill(child.pid, number)
        assert child.wait(DEADLINE) == 7
    found = bench.read()
    assert found.exit is not None
    assert (found.exit.code, found.exit.signal, found.signal) == (7, name, name)
    assert "got" in (bench.folder / "stdout").read_text()


@pytest.mark.parametrize(("program", "code"), [("exit 7", 7), ("kill -KILL 0", 137)])
def test_an_end_that_the_shell_loses_is_on_record(tmp_path: Path, program: str, code: int) -> None:
    """As bash does if a signal interrupts `wait` just when the program ends: its code is gone, and waiting endless."""
    loses = 'wait() { [ -z "$lost" ] || exec sleep 300; lost=1; builtin wait "$@"; edbjobs_woken=yes; return 143; }'
    bench = Bench(tmp_path, program=program, site=SiteLines(setup=(loses,)))
    assert bench.run()[0] == code
    found = bench.read()
    assert found.exit is not None
    assert found.exit.code == code


def test_children_of_the_program_get_the_signal_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path, program="sleep 300 & echo $! >child; echo ready; wait")
    with bench.started() as child:
        ready(bench)
        os.kill(child.pid, signal.SIGTERM)
        assert child.wait(DEADLINE) == 143
    until(lambda: not is_alive(int((bench.cwd / "child").read_text())), "the program's child has ended")


def test_a_program_that_ends_well_on_term_keeps_its_code(tmp_path: Path) -> None:
    bench = Bench(tmp_path, program=WAITS.replace("exit 7", "sleep 0.3; exit 0"))
    with bench.started() as child:
        ready(bench)
        for _ in range(3):
            os.kill(child.pid, signal.SIGTERM)
        assert child.wait(DEADLINE) == 0
    found = bench.read()
    assert found.exit is not None
    assert (found.exit.code, found.exit.signal) == (0, "TERM")


def test_a_program_that_ignores_term_is_waited_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, program='trap "echo ignored" TERM; echo ready; while :; do sleep 0.05; done')
    with bench.started() as child:
        ready(bench)
        start = bench.wait_start()
        os.kill(child.pid, signal.SIGTERM)
        until(lambda: bench.read().signal == "TERM", "the signal is on record")
        until(lambda: "ignored" in (bench.folder / "stdout").read_text(), "the program has got it")
        assert child.poll() is None
        assert bench.read().exit is None
        os.killpg(os.getpgid(start.pid), signal.SIGKILL)
        assert child.wait(DEADLINE) == 137
    found = bench.read()
    assert found.exit is not None
    assert (found.exit.code, found.exit.signal) == (137, "TERM")


def test_a_signal_before_the_program_begins(tmp_path: Path) -> None:
    lines = ('touch "$HOME/loading"', 'while [ -e "$HOME/loading" ]; do sleep 0.02; done')
    bench = Bench(tmp_path, program="touch ran", site=SiteLines(setup=lines))
    with bench.started() as child:
        until((tmp_path / "loading").exists, "the site's lines are at work")
        os.kill(child.pid, signal.SIGTERM)
        (tmp_path / "loading").unlink()
        assert child.wait(DEADLINE) == 143
    found = bench.read()
    assert found.exit is not None
    assert (found.exit.code, found.exit.signal, found.start) == (143, "TERM", None)
    assert not (bench.cwd / "ran").exists()


def test_the_heart_beats_until_the_script_is_killed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, program="echo ready; exec sleep 300")
    with bench.started() as child:
        ready(bench)
        first = bench.read().beat
        until(lambda: bench.read().beat != first, "another beat")
        beating = members(child.pid)
        child.kill()
        child.wait(DEADLINE)
        until(lambda: not any(is_alive(pid) for pid in beating), "the heartbeat has ended")
        last = bench.read()
        assert last.start is not None
        assert last.exit is None
        time.sleep(2 * BEAT)  # nothing can be waited for: it must not come
        assert bench.read().beat == last.beat


@pytest.mark.parametrize("whole_group", [False, True], ids=["the script", "its group"])
def test_a_program_that_ignores_term_goes_with_its_script(tmp_path: Path, whole_group: bool) -> None:
    """SLURM with proctrack/linuxproc kills the group of the script, and finds no children of it afterwards."""
    bench = Bench(tmp_path, program='trap "" TERM; sleep 300 & echo ready; while :; do sleep 0.05; done')
    with bench.started() as child:
        ready(bench)
        if whole_group:
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
        child.wait(DEADLINE)
        until(lambda: not session(child.pid), "nothing is left of the program")


def test_what_a_program_leaves_behind_goes_with_its_script(tmp_path: Path) -> None:
    bench = Bench(tmp_path, program="sleep 300 & exit 0")
    with bench.started() as child:
        assert child.wait(DEADLINE) == 0
        until(lambda: not session(child.pid), "nothing is left of the program")


def test_the_program_has_no_children_that_it_did_not_start(tmp_path: Path) -> None:
    """One that waits for all its children must not wait for a helper of ours."""
    program = 'exec python3 -c "import os\ntry: os.wait()\nexcept ChildProcessError: print(0, flush=True)"'
    bench = Bench(tmp_path, program=program)
    assert bench.shown() == ["0"]
