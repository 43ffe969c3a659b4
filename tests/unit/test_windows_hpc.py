"""What is asked of HPC Pack, and what its words mean; both from documents, none measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from edbjobs.config import SchedulerOptions
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.runs import Ending
from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.schedulers.base import Submission, Unreachable
from edbjobs_server.executors.schedulers.windows_hpc import WindowsHpc
from edbjobs_server.executors.schedulers.windows_hpc.nodes import used_cores
from edbjobs_server.executors.schedulers.windows_hpc.properties import PathMap, command_line
from edbjobs_server.executors.schedulers.windows_hpc.rest import base_url, properties
from edbjobs_server.executors.schedulers.windows_hpc.states import NEVER_SUBMITTED, Clock, ending_of, nodes_of
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

NAME = "edb-a-0123456789abcdef-1"
CLOCK = Clock("M/d/yyyy h:mm:ss tt")
STARTED, LATER = "11/23/2026 9:00:00 AM", "11/23/2026 10:00:00 AM"


def adapter(**more: Any) -> WindowsHpc:
    return WindowsHpc("https://head", lambda: ("HPC\\u", "secret"), **more)


def directives(**more: Any) -> dict[str, str]:
    return dict(line.split("=", 1) for line in adapter().directives(Allocation(NAME, "c", **more)))


def options(**more: Any) -> SchedulerOptions:
    return SchedulerOptions(**more)


# Directives --------------------------------------------------------------------------------------------------


def test_a_shared_node_gives_cores_and_whole_nodes_are_asked_for_as_nodes() -> None:
    shared = directives(cores_per_node=6)
    assert (shared["UnitType"], shared["MinCores"], shared["MaxCores"], shared["SingleNode"]) == ("0", "6", "6", "true")
    for whole in (
        directives(nodes=2, cores_per_node=6),
        directives(nodes=2, cores_per_node=6, options=options(exclusive=True)),
    ):
        assert (whole["UnitType"], whole["MinNodes"], whole["MaxNodes"]) == ("2", "2", "2")
        assert whole["MinCoresPerNode"] == "6"
        assert "MinCores" not in whole
    assert directives(options=options(exclusive=True))["IsExclusive"] == "true"
    assert directives(options=options(exclusive=True))["UnitType"] == "2"


def test_every_option_it_has_a_word_for() -> None:
    found = directives(
        memory_bytes_per_node=65536 << 20,
        partition="Big nodes",
        account="P-17",
        time_limit=1800.0,
        options=options(
            include_nodes=("CN001", "CN002"),
            email="a@b.example",
            licenses={"hfss": 2, "anshpc": 1},
            extra={"JobTemplate": "Solve", "Preemptable": "false"},
        ),
    )
    assert found["MinMemory"] == "65536"
    assert found["NodeGroups"] == "Big nodes"
    assert found["Project"] == "P-17"
    assert found["RuntimeSeconds"] == "1800"
    assert found["RequestedNodes"] == "CN001,CN002"
    assert (found["EmailAddress"], found["NotifyOnCompletion"]) == ("a@b.example", "true")
    assert found["SoftwareLicense"] == "anshpc:1,hfss:2"
    assert (found["JobTemplate"], found["Preemptable"]) == ("Solve", "false")
    assert found["FailOnTaskFailure"] == "true"


def test_what_is_not_asked_for_is_not_said() -> None:
    unsaid = {
        "RuntimeSeconds",
        "NodeGroups",
        "RequestedNodes",
        "MinMemory",
        "Project",
        "EmailAddress",
        "SoftwareLicense",
        "Priority",
        "IsExclusive",
    }
    assert not unsaid & set(directives())


@pytest.mark.parametrize(
    ("word", "number"),
    [("lowest", 0), ("below_normal", 1), ("low", 1), ("normal", 2), ("above_normal", 3), ("high", 3), ("highest", 4)],
)
def test_priorities(word: str, number: int) -> None:
    assert directives(options=options(priority=word))["Priority"] == str(number)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reservation", "r"),
        ("qos", "q"),
        ("constraint", "c"),
        ("gpus_per_node", 1),
        ("gpu_type", "a100"),
        ("wckey", "w"),
        ("exclude_nodes", ("CN001",)),
        ("run_as_administrator", True),
        ("include_nodes", ("CN[001-003]",)),
    ],
)
def test_what_it_has_no_word_for_is_refused_by_field(field: str, value: Any) -> None:
    with pytest.raises(Refused) as refused:
        directives(options=options(**{field: value}))
    assert refused.value.reason == "INVALID_JOB"
    assert list(refused.value.fields) == [f"config.scheduler_options.{field}"]


@pytest.mark.parametrize("name", ["Password", "UserName", "Name", "MinCores", "ExpandedPriority", "Nonsense"])
def test_further_options_cannot_change_who_it_runs_as_or_what_we_set(name: str) -> None:
    with pytest.raises(Refused) as refused:
        directives(options=options(extra={name: "x"}))
    assert list(refused.value.fields) == [f"config.scheduler_options.extra.{name}"]


def test_all_wrong_fields_are_named_at_once() -> None:
    with pytest.raises(Refused) as refused:
        directives(partition="a,b", account="x" * 81, memory_bytes_per_node=2**51, options=options(qos="q"))
    named = {name.rpartition(".")[2] for name in refused.value.fields}
    assert named == {"partition", "account", "memory_bytes_per_node", "qos"}


@pytest.mark.parametrize(("limit", "seconds"), [(90.2, "91"), (0.0, str(5 * 365 * 86_400))])
def test_the_time_limit_is_rounded_up_and_0_is_no_limit(limit: float, seconds: str) -> None:
    assert directives(time_limit=limit)["RuntimeSeconds"] == seconds


def test_other_jobs_on_the_nodes() -> None:
    assert directives(options=options(exclusive=False))["IsExclusive"] == "false"


@given(st.dictionaries(
    st.sampled_from(["partition", "account", "wckey", "email", "constraint", "comment"]),
    st.text(max_size=40),
), st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=2))  # fmt: skip
def test_no_text_makes_a_line_of_its_own(texts: dict[str, str], extra: dict[str, str]) -> None:
    direct = {name: texts.pop(name) for name in ("partition", "account") if name in texts}
    try:
        lines = adapter().directives(Allocation(NAME, "c", **direct, options=options(**texts, extra=extra)))  # type: ignore[arg-type]
    except (Refused, ValidationError):
        return
    assert all(line.isprintable() for line in lines)
    names = [line.split("=", 1)[0] for line in lines]
    assert len(set(names)) == len(names)
    assert "Password" not in names
    assert all(re.fullmatch("[A-Za-z]+", name) for name in names)
    assert lines[0] == f"Name={NAME}"


# Paths -------------------------------------------------------------------------------------------------------


def test_the_longest_mapped_folder_counts() -> None:
    hpc = adapter(path_map={"/shared": "\\\\fs\\all", "/shared/big/": "\\\\big\\runs\\", "/z": "Z:\\"})
    assert hpc.node_path("/shared/a b/c.aedt") == "\\\\fs\\all\\a b\\c.aedt"
    assert hpc.node_path("/shared/big/x") == "\\\\big\\runs\\x"
    assert hpc.node_path("/shared/bigger") == "\\\\fs\\all\\bigger"
    assert hpc.node_path("/shared") == "\\\\fs\\all"
    assert hpc.node_path("/z/run") == "Z:\\run"


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("C:\\Program Files\\x\\a.exe", "C:\\Program Files\\x\\a.exe"),
        ("C:/x/../y", "C:\\y"),
        ("\\\\fs\\runs\\a b\\c", "\\\\fs\\runs\\a b\\c"),
        ("\\\\fs\\runs", "\\\\fs\\runs"),
    ],
)
def test_windows_own_paths_mean_the_same_on_the_nodes(path: str, seen: str) -> None:
    assert adapter().node_path(path) == seen


@pytest.mark.parametrize(
    "path",
    [
        "C:x",
        "C:\\a%b",
        "C:\\a\nb",
        "C:\\a.",
        "\\\\fs",
        "\\\\?\\C:\\x",
        "\\\\f%s\\x\\y",
        "//fs/x/y",
        "C:\\" + "x" * 260,
        'C:\\a"b',
    ],
)
def test_windows_paths_that_are_none_are_refused(path: str) -> None:
    with pytest.raises(Refused) as refused:
        adapter().node_path(path)
    assert refused.value.reason == "PROJECT_NOT_SHARED"
    assert list(refused.value.fields) == ["config.project_path"]


@pytest.mark.parametrize(
    "path",
    ["/home/x", "/sharedish/x", "/shared/../etc", "/shared/a:b", "/shared/a%b", '/shared/a"b', "/shared/a\\b",
     "/shared/a.", "/shared/a ", "/shared/a\nb", "/shared/\udcff", "shared/x", "", "/shared/" + "x" * 260],
)  # fmt: skip
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(Refused) as refused:
        adapter(path_map={"/shared": "\\\\fs\\all"}).node_path(path)
    assert refused.value.reason == "PROJECT_NOT_SHARED"


def test_where_nothing_is_mapped_it_says_so() -> None:
    with pytest.raises(Refused, match=r"\(none\)"):
        adapter().node_path("/shared/x")


@pytest.mark.parametrize("pair", [("shared", "\\\\fs\\x"), ("/shared", "/mnt"), ("/shared", "fs"), ("/s", "\\\\f%\\x")])
def test_a_wrong_map_is_refused_at_once(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="windows_hpc"):
        adapter(path_map=dict([pair]))


@given(st.text(min_size=1, max_size=60))
def test_no_path_leaves_its_place_in_the_command(text: str) -> None:
    try:
        path = PathMap({"/s": "\\\\fs\\x"}).translate(f"/s/{text}")
    except Refused:
        return
    line = command_line(path)
    assert path.startswith("\\\\fs\\x")
    assert line.count('"') == 2
    assert "%" not in line
    assert line.endswith(f' -File "{path}"')


# Words -------------------------------------------------------------------------------------------------------


def ended(job: dict[str, str], task: dict[str, str] | None = None) -> tuple[Ending, int | None]:
    times = {"StartTime": STARTED, "EndTime": LATER, "AllocatedNodes": "CN001"}
    end = ending_of({**times, **job}, task or {}, CLOCK)
    return end.ending, end.exit_code


def test_only_a_finished_job_with_a_finished_task_and_its_code_has_exited_well() -> None:
    assert ended({"State": "Finished"}, {"State": "Finished", "ExitCode": "0"}) == (Ending.EXITED, 0)
    for task in (
        {},
        {"State": "Finished"},
        {"State": "Failed", "ExitCode": "0"},
        {"State": "Finished", "ExitCode": ""},
    ):
        assert ended({"State": "Finished"}, task) == (Ending.CANCELLED_EXTERNALLY, None)
    assert ended({"State": "Failed"}, {"State": "Finished", "ExitCode": "0"}) == (Ending.LOST, None)
    assert ended({"State": "Failed"}, {"State": "Failed"}) == (Ending.LOST, None)
    assert ended({"State": "Failed"}, {"State": "Failed", "ExitCode": "3"}) == (Ending.EXITED, 3)


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        (-2147218987, Ending.TIMEOUT),
        (-2147218985, Ending.TIMEOUT),
        (2147483648 * 2 - 2147218985, Ending.TIMEOUT),
        (-2147220991, Ending.CANCELLED_EXTERNALLY),
        (-2147218984, Ending.NODE_FAIL),
        (-2147218978, Ending.PREEMPTED),
        (-2147218979, Ending.START_FAILED),
    ],
)
@pytest.mark.parametrize("place", ["job", "task"])
def test_the_number_of_an_error_tells_whatever_the_language(code: int, ending: Ending, place: str) -> None:
    job = {"State": "Failed", "ErrorMessage": "Es ist ein Fehler aufgetreten."}
    task = {"State": "Failed", "ExitCode": "1"}
    (job if place == "job" else task)["ErrorCode"] = str(code)
    assert ended(job, task) == (ending, None)


@pytest.mark.parametrize(
    ("words", "ending"),
    [
        ("Canceled by user. Message: the run time limit of this week", Ending.CANCELLED_EXTERNALLY),
        ("The job was canceled by HPC\\admin", Ending.CANCELLED_EXTERNALLY),
        ("The job exceeded its run-time limit.", Ending.TIMEOUT),
        ("Runtime exceeded", Ending.TIMEOUT),
        ("The job was preempted by a higher priority job.", Ending.PREEMPTED),
        ("Node CN001 is unreachable", Ending.NODE_FAIL),
        ("The working directory was not found", Ending.START_FAILED),
    ],
)
def test_english_words(words: str, ending: Ending) -> None:
    assert ended({"State": "Failed", "ErrorMessage": words})[0] is ending
    assert ended({"State": "Failed"}, {"ErrorMessage": words, "ExitCode": "1"})[0] is ending


def test_the_limit_tells_where_words_do_not() -> None:
    failed = {"State": "Failed", "ErrorMessage": "?"}
    assert ended({**failed, "RuntimeSeconds": "3600"})[0] is Ending.TIMEOUT
    assert ended({**failed, "RuntimeSeconds": "3601"})[0] is Ending.LOST
    assert ended({"State": "Canceled", "RuntimeSeconds": "3600"})[0] is Ending.TIMEOUT
    assert ended({"State": "Finished", "RuntimeSeconds": "3600"}, {"State": "Finished", "ExitCode": "0"}) == (
        Ending.EXITED,
        0,
    )


def test_never_submitted_and_never_valid() -> None:
    called_off = {"State": "Canceled", "ErrorMessage": f"Canceled by user. Message: {NEVER_SUBMITTED}"}
    assert ended(called_off)[0] is Ending.NEVER_RAN
    assert len(NEVER_SUBMITTED) <= 128
    unborn = {"State": "Failed", "StartTime": "1/1/0001 12:00:00 AM", "AllocatedNodes": "", "ErrorMessage": "no"}
    assert ended(unborn)[0] is Ending.SUBMIT_REFUSED


@pytest.mark.parametrize(
    ("pattern", "text", "seconds"),
    [
        ("M/d/yyyy h:mm:ss tt", "2/29/2020 12:00:00 AM", 1582934400.0),
        ("M/d/yyyy h:mm:ss tt", "2/29/2020 12:00:01 PM", 1582977601.0),
        ("dd.MM.yyyy HH:mm:ss", "29.02.2020 13:00:00", 1582981200.0),
        ("yyyy-MM-dd HH:mm:ss", "2020-02-29 13:00:00", 1582981200.0),
        ("M/d/yyyy h:mm:ss tt", "1/1/0001 12:00:00 AM", None),
        ("M/d/yyyy h:mm:ss tt", "29.02.2020 13:00:00", None),
        ("M/d/yyyy h:mm:ss tt", "13/13/2020 1:00:00 AM", None),
        ("M/d/yyyy h:mm:ss tt", "1/1/2999 1:00:00 AM", None),
        ("M/d/yyyy h:mm:ss tt", "", None),
        ("", "2/29/2020 12:00:00 AM", None),
        ("d d", "1 1", None),
    ],
)
def test_times(pattern: str, text: str, seconds: float | None) -> None:
    assert Clock(pattern).seconds(text) == seconds


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_form_of_a_time_is_too_strange(pattern: str, text: str) -> None:
    assert Clock(pattern).seconds(text) is None or pattern


def test_nodes() -> None:
    assert nodes_of("CN001,CN002") == ("CN001", "CN002")
    assert nodes_of("CN001 4 CN002 8") == ("CN001", "CN002")
    assert nodes_of(None) == nodes_of("") == ()
    assert used_cores([{"NodeName": "A", "Metrics": {"HpcCoresInUse": 3.0}}, {"NodeName": "B", "Metrics": {}}, 7]) == {
        "a": 3
    }


# The rest ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["https://head", "https://head/", "https://head/hpc", "https://head:8443"])
def test_addresses(url: str) -> None:
    assert base_url(url).endswith("/hpc")


@pytest.mark.parametrize(
    "url",
    [
        "http://head",
        "head",
        "ftp://head",
        "https://",
        "https://u:p@head",
        "https://head/WindowsHPC",
        "https://head?x=1",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="windows_hpc"):
        WindowsHpc(url, lambda: ("u", "p"))


@pytest.mark.parametrize("url", ["http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1"])
def test_plain_http_is_for_loopback(url: str) -> None:
    assert base_url(url) == f"{url}/hpc"


async def test_users_that_basic_cannot_carry() -> None:
    for user in ("", "a:b"):
        with pytest.raises(Unreachable, match="without a colon"):
            await WindowsHpc("https://head", lambda user=user: (user, "p")).probe()  # type: ignore[misc]

    def gone() -> tuple[str, str]:
        raise ValueError("/etc/hpc is open to others (mode 0644): chmod 600, and change the password")

    with pytest.raises(Unreachable, match=r"cannot be used: /etc/hpc is open to others .*: chmod 600"):
        await WindowsHpc("https://head", gone).probe()


def test_properties_without_a_value_are_left_out() -> None:
    assert properties([{"Name": "A", "Value": None}, {"Name": "B", "Value": "1"}, {"Name": "C", "Value": 2}], "/x") == {
        "B": "1",
        "C": "2",
    }
    with pytest.raises(Unreachable, match="not a list"):
        properties({"Message": "x"}, "/x")


def test_people_can_read_how_it_is_submitted() -> None:
    run = Path("/shared/1")
    words = adapter().submit_command(Submission(Allocation(NAME, "c"), run / "script", run / "output", run, {}))
    assert words[:2] == ["POST", "https://head/hpc/jobs"]
    assert adapter().end_in_output("anything") is None


# What PowerShell writes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("edbjobs: \\\\fs\\7.1 cannot be written on CN001\r\n", "\\\\fs\\7.1 cannot be written on CN001"),
        (
            "Datei x.ps1 kann nicht geladen werden.\r\n  + FullyQualifiedErrorId : UnauthorizedAccess\r\n",
            "PowerShell did not run it: Datei x.ps1 kann nicht geladen werden. + FullyQualifiedErrorId : "
            "UnauthorizedAccess",
        ),
        (
            "L'argument \u00ab x.ps1 \u00bb du param\u00e8tre -File n'existe pas.\r\n",
            "PowerShell did not run it: L'argument \u00ab x.ps1 \u00bb du param\u00e8tre -File n'existe pas.",
        ),
    ],
)
def test_why_powershell_did_not_run_the_script(output: str, told: str) -> None:
    assert adapter().end_in_output(output) == (Ending.START_FAILED, told)


@pytest.mark.parametrize(
    "output", ["", "\r\n", "its output is not whole: disk full", "x-File", "MyUnauthorizedAccessLog"]
)
def test_other_output_says_nothing(output: str) -> None:
    assert adapter().end_in_output(output) is None
