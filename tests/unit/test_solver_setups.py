"""Setups are read from text projects, archives and .aedb folders, real ones included."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest
from edbjobs_server.solver import setups as setups_module
from edbjobs_server.solver.demo import example_names, example_project
from edbjobs_server.solver.setups import Setup, Sweep, hertz, read_setups, select
from edbjobs_server.util.files import Budget, NotRegularFile, is_transient
from hypothesis import given
from hypothesis import strategies as st

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "aedb"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample projects are not beside this checkout")

# As edb.def holds it: one quoted string in a binary file, here with two kinds of frequency lists.
EDB_SETUP = r"""	$begin 'SimSetups'
		SimSetup(id=2, n='Main', t=0, v='$begin \'SimSetupInfo\'\
\	SimSetupType=\'kHFSS\'\
\	$begin \'SimulationSettings\'\
\	\	Enabled=true\
\	\	$begin \'AdaptiveSettings\'\
\	\	\	AdaptType=\'kBroadband\'\
\	\	\	$begin \'SingleFrequencyDataList\'\
\	\	\	\	$begin \'AdaptiveFrequencyData\'\
\	\	\	\	\	AdaptiveFrequency=\'1GHz\'\
\	\	\	\	\	MaxDelta=\'0.5\'\
\	\	\	\	\	MaxPasses=50\
\	\	\	\	$end \'AdaptiveFrequencyData\'\
\	\	\	$end \'SingleFrequencyDataList\'\
\	\	\	$begin \'BroadbandFrequencyDataList\'\
\	\	\	\	$begin \'AdaptiveFrequencyData\'\
\	\	\	\	\	AdaptiveFrequency=\'5GHz\'\
\	\	\	\	\	MaxDelta=\'0.03\'\
\	\	\	\	\	MaxPasses=7\
\	\	\	\	$end \'AdaptiveFrequencyData\'\
\	\	\	$end \'BroadbandFrequencyDataList\'\
\	\	$end \'AdaptiveSettings\'\
\	$end \'SimulationSettings\'\
\	$begin \'SweepDataList\'\
\	\	$begin \'SweepData\'\
\	\	\	Name=\'Off\'\
\	\	\	Enabled=false\
\	\	$end \'SweepData\'\
\	\	$begin \'SweepData\'\
\	\	\	Name=\'On\'\
\	\	\	Enabled=true\
\	\	\	FreqSweepType=\'kDiscrete\'\
\	\	\	FrequencyString=\'LIN 1GHz 2GHz 0.5GHz\'\
\	\	\	Frequencies(\'1GHz\', \'1.5GHz\', \'2GHz\')\
\	\	$end \'SweepData\'\
\	$end \'SweepDataList\'\
$end \'SimSetupInfo\'\
')
	$end 'SimSetups'
"""


def test_the_examples() -> None:
    assert example_names() == ("patch_antenna", "via_transition")


def test_a_text_project(tmp_path: Path) -> None:
    assert read_setups(example_project(tmp_path, "via_transition")) == (
        Setup("Via", "Coarse", "10GHz", 6, 0.05),
        Setup("Via", "Fine", "20GHz", 15, 0.01, (Sweep("Points", "discrete", 20, 1e9, 20e9),)),
    )


def test_an_archive(tmp_path: Path) -> None:
    plain = example_project(tmp_path)
    archive = tmp_path / "patch_antenna.aedtz"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(plain, plain.name)
    assert read_setups(archive) == read_setups(plain)
    assert len(read_setups(plain)) == 1


def test_an_aedb_folder(tmp_path: Path) -> None:
    (tmp_path / "x.aedb").mkdir()
    (tmp_path / "x.aedb" / "edb.def").write_bytes(b"\x00Y\x00\x00\xff\n" + EDB_SETUP.encode() + b"\x00\x01\n")
    assert read_setups(tmp_path / "x.aedb") == (
        Setup("", "Main", "5GHz", 7, 0.03, (Sweep("On", "discrete", 3, 1e9, 2e9),)),
    )


@needs_samples
def test_real_aedb_folders() -> None:
    found = read_setups(SAMPLES / "test_project_for_job_manager.aedb")
    assert [(s.name, s.max_passes, s.delta_s) for s in found] == [("HFSS_Solution", 2, 0.02)]
    assert found[0].sweeps == (Sweep("Sweep1", "interpolating", 41, 0.0, 1e9),)
    assert read_setups(SAMPLES / "test_107.aedb") == ()
    assert read_setups(SAMPLES / "edge_ports.aedb") == ()


def test_a_disabled_setup_and_a_step_range(tmp_path: Path) -> None:
    path = example_project(tmp_path)
    text = path.read_text().replace("RangeCount=201", "RangeStep='0.25GHz'")
    path.write_text(text)
    assert read_setups(path)[0].sweeps[0].points == 5
    path.write_text(text.replace("Enabled=true", "Enabled=false", 1))
    assert read_setups(path) == ()


def test_what_is_broken_yields_what_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = example_project(tmp_path, "via_transition")
    text = path.read_text()
    path.write_text("$end 'Nothing'\n" + text.replace("MaximumPasses=6", "MaximumPasses=many"))
    assert [setup.max_passes for setup in read_setups(path)] == [0, 15]
    path.write_text(text[: text.index("$begin 'Fine'")])
    assert [setup.name for setup in read_setups(path)] == ["Coarse"]
    path.write_bytes(b"")
    assert read_setups(path) == ()
    monkeypatch.setattr(setups_module, "READ_LIMIT", 100)
    path.write_text(text)
    assert read_setups(path) == ()
    with pytest.raises(OSError, match="gone"):
        read_setups(tmp_path / "gone.aedt")


@pytest.mark.parametrize("number", ["inf", "nan", "-5", "1e999", "9" * 5000, "1.2.3", "", "0x10", "5 of them"])
def test_malformed_numbers_count_as_absent(tmp_path: Path, number: str) -> None:
    path = example_project(tmp_path)
    text = path.read_text()
    for key in ("MaximumPasses=12", "MaxDeltaS=0.02", "RangeCount=201"):
        text = text.replace(key, f"{key.partition('=')[0]}={number}")
    text = text.replace("RangeStart='2GHz'", f"RangeStart='{number}GHz'")
    path.write_text(text)
    (found,) = read_setups(path)
    assert (found.max_passes, found.delta_s, found.sweeps[0].points, found.sweeps[0].start) == (0, 0, 0, 0)
    path.write_text(text.replace("RangeCount", "RangeStep='1e-300Hz'\nX"))
    assert read_setups(path)[0].sweeps[0].points == 0


def test_an_archive_that_is_none_is_an_error_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.aedtz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.aedt", "$begin 'AnsoftProject'\n" * 100)
    whole = path.read_bytes()
    broken = whole[:40] + b"\xff\xff\xff" + whole[43:]
    for content in (b"", b"no archive", b"PK\x03\x04" + b"\x00" * 40, whole[:60], broken):
        path.write_bytes(content)
        with pytest.raises(OSError, match="archive"):
            read_setups(path)


PIECES = st.sampled_from(
    ["$begin 'SolveSetups'\n", "$begin 'Sweeps'\n", "$begin 'A'\n", "$end 'A'\n", "$end 'SolveSetups'\n", "$begin ''\n",
     "SimSetup(id=2, n='M', t=0, v='$begin \\'A\\'\\\n", "Enabled=false\n", "MaxPasses=inf\n", "MaxDelta='nan'\n",
     "AdaptType='kX'\n", "RangeStep='0Hz'\n", "RangeEnd='9e99THz'\n", "$begin 'SweepData'\n", "$end 'SweepData'\n",
     "Frequencies('1', '2'\n", "FrequencyString='LIN a b'\n", "Name='x'\n", "$end 'Sweeps'\n", "\x00\n"]
)  # fmt: skip


@given(st.lists(PIECES | st.text(max_size=12), max_size=40))
def test_nothing_that_is_in_a_project_can_stop_the_reader(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.aedt"
    path.write_text("".join(pieces), encoding="utf-8", errors="replace")
    for setup in read_setups(path):
        assert 0 <= setup.max_passes < 2**31
        assert all(0 <= sweep.points < 2**31 for sweep in setup.sweeps)


def test_selection() -> None:
    a, b, c = Setup("D1", "A"), Setup("D1", "B"), Setup("", "A")
    assert select([a, b, c], "", "") == (a, b, c)
    assert select([a, b, c], "D1", "") == (a, b, c)
    assert select([a, b, c], "D2", "") == (c,)
    assert select([a, b, c], "D1", "B") == (b,)
    assert select([a, b, c], "", "Z") == ()


@pytest.mark.parametrize(
    ("text", "value"), [("2.5GHz", 2.5e9), ("0GHz", 0), ("10 MHz", 1e7), ("100kHz", 1e5), ("5Hz", 5), ("x", 0), ("", 0)]
)
def test_frequencies(text: str, value: float) -> None:
    assert hertz(text) == value


def test_an_unknown_example_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="patch_antenna, via_transition"):
        example_project(tmp_path, "../patch_antenna")


def test_an_archive_that_unpacks_without_end_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "x.aedtz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(4):
            file.writestr(f"{number}.aedt", b"x\n" * 400_000)
    budget = Budget(1_000_000, 60)
    assert read_setups(path, budget) == ()
    assert budget.spent == "it has more than 1000000 bytes"
    assert budget.used <= 1_000_000 + 10_000
    assert read_setups(path, Budget(10_000_000, 60)) == ()


def test_an_archive_whose_list_of_members_has_no_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.aedtz"
    with zipfile.ZipFile(path, "w") as file:
        for number in range(3000):
            file.writestr(f"{'n' * 200}{number}", b"")
    monkeypatch.setattr(setups_module, "_DIRECTORY_LIMIT", 100_000)
    with pytest.raises(OSError, match=r"its list of members has [0-9]+ bytes") as error:
        read_setups(path)
    assert not is_transient(error.value)


def test_a_project_that_cannot_be_read_completely_gives_no_setups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = example_project(tmp_path, "via_transition")
    budget = Budget(path.stat().st_size - 10, 60)
    assert (read_setups(path, budget), bool(budget.spent)) == ((), True)
    budget = Budget(1_000_000, 60)
    assert (len(read_setups(path, budget)), budget.spent) == (2, "")
    slow = Budget(1_000_000, 0)
    assert (read_setups(path, slow), slow.late) == ((), True)


def test_setups_without_number_are_not_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.aedt"
    sweep = "$begin 'Sweeps'\n" + "$begin 'W'\n$end 'W'\n" * 5 + "$end 'Sweeps'\n"
    path.write_text("$begin 'SolveSetups'\n" + f"$begin 'S'\n{sweep}$end 'S'\n" * 3000)
    found = read_setups(path)
    assert sum(1 + len(setup.sweeps) for setup in found) <= 10_000
    assert len(found) > 1000


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs")
@pytest.mark.parametrize("name", ["x.aedt", "x.aedtz", "x.aedb/edb.def"])
def test_a_fifo_in_place_of_a_project_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(NotRegularFile):
        read_setups(tmp_path / name.partition("/")[0])
