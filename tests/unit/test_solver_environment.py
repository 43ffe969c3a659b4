"""A run's environment holds what the solver needs, no secret, and nothing that lets a job choose a program."""

from __future__ import annotations

import pytest
from edbjobs_server.core.errors import Refused
from edbjobs_server.solver.environment import environment, refuse_environment


def test_the_service_keeps_its_own_to_itself() -> None:
    base = {
        "HOME": "/home/u",
        "PATH": "/srv/venv/bin:/usr/bin:/srv/venv/bin/:/bin",
        "VIRTUAL_ENV": "/srv/venv",
        "VIRTUAL_ENV_PROMPT": "x",
        "PYTHONPATH": "/x",
        "PYTHONHOME": "/y",
        "EDBJOBS_TOKEN_FILE": "/t",
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "LISTEN_FDS": "1",
        "LD_LIBRARY_PATH": "/opt/lib",
        "LANG": "C.UTF-8",
    }
    assert environment(base, {}, platform="linux") == {
        "HOME": "/home/u",
        "PATH": "/usr/bin:/bin",
        "LD_LIBRARY_PATH": "/opt/lib",
        "LANG": "C.UTF-8",
    }


@pytest.mark.parametrize(
    "name",
    [
        "GITHUB_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PGPASSWORD", "DB_PASSWD",
        "MY_API_KEY", "APIKEY", "SLURM_JWT", "GOOGLE_APPLICATION_CREDENTIALS", "SSH_PASSPHRASE", "client_secret",
        "ANSYS_HPS_TOKEN", "RSA_PRIVATE_KEY",
    ],
)  # fmt: skip
def test_secrets_stay_behind(name: str) -> None:
    assert environment({name: "s", "A": "b"}, {}) == {"A": "b"}


@pytest.mark.parametrize(
    "name",
    [
        "ANSYSLMD_LICENSE_FILE", "LM_LICENSE_FILE", "ANSYSLI_SERVERS", "ANSYSEM_ROOT252", "AWP_ROOT252", "KRB5CCNAME",
        "SSH_AUTH_SOCK", "KEYBOARD", "XKB_DEFAULT_LAYOUT", "I_MPI_FABRICS", "TMPDIR", "USER", "MONKEY_PATH", "DISPLAY",
    ],
)  # fmt: skip
def test_what_the_solver_needs_stays(name: str) -> None:
    assert environment({name: "v"}, {}) == {name: "v"}


def test_on_windows_names_have_no_case_and_paths_their_separator() -> None:
    base = {"Path_Token": "s", "VIRTUAL_ENV": "C:/venv", "PATH": "C:/venv/Scripts;C:/Windows"}
    assert environment(base, {}, platform="win32") == {"PATH": "C:/Windows"}


@pytest.mark.parametrize(
    "name",
    [
        "ANSYSLMD_LICENSE_FILE", "ANS_IGNOREOS", "ANSOFT_DEBUG_LOG", "ANSYSEM_ENV_VARS_TO_PASS", "I_MPI_FABRICS",
        "I_MPI_HYDRA_BRANCH_COUNT", "I_MPI_HYDRA_BOOTSTRAP", "FI_PROVIDER", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
        "KMP_AFFINITY", "MPI_TIME_OUT_SECONDS", "MPI_USELSF", "ANS_EDBJOBS_DEMO", "ANSYS_HFSS_DISABLE_GPU",
    ],
)  # fmt: skip
def test_names_of_the_solver_may_be_added_and_win(name: str) -> None:
    assert environment({name: "old"}, {name: "new"}) == {name: "new"}


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "PATH", "BASH_ENV", "ENV", "PYTHONPATH",
        "IFS", "HOME", "EDBJOBS_STATE_DIR", "SSH_ASKPASS", "LINUX_SSH_BINARY_PATH", "GCONV_PATH", "PROMPT_COMMAND",
        "ld_preload", "ans_x",
        # of the solver's own names, those that name programs, libraries or where they are looked for
        "ANSYSEM_GENERIC_MPI_WRAPPER", "ANSYSEM_ROOT252", "ANSYSEM_COMMON_PREFIX", "ANSYSEM_LINUX_HPC_UTILS",
        "I_MPI_HYDRA_BOOTSTRAP_EXEC", "I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS", "I_MPI_ROOT", "I_MPI_PMI_LIBRARY",
        "FI_PROVIDER_PATH", "OMP_TOOL_LIBRARIES", "MPI_ROOT", "MPI_REMSH", "I_MPI_LIBRARY_KIND",
        "I_MPI_HYDRA_GDB_REMOTE_SHELL",
    ],
)  # fmt: skip
def test_what_could_run_another_program_is_refused(name: str) -> None:
    with pytest.raises(Refused) as refused:
        environment({}, {"OMP_NUM_THREADS": "4", name: "/tmp/evil.so"})
    assert refused.value.reason == "ENVIRONMENT_NOT_ALLOWED"
    assert list(refused.value.fields) == [f"config.environment[{name}]"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("", "x"), ("A=B", "x"), ("ANS X", "x"), ("ANS_X\nLD_PRELOAD", "x"), ("1ANS", "x"), ("ANS_X", "a\nb"),
     ("ANS_X", "a\x00b"), ("ANS_X", "a\rb"), ("ANS_X", "y" * 40_000)],
)  # fmt: skip
def test_names_and_values_are_checked(name: str, value: str) -> None:
    with pytest.raises(Refused):
        refuse_environment({name: value})


def test_the_administrator_can_allow_more() -> None:
    refuse_environment({"SITE_MODE": "x"}, ["SITE_*"])
    with pytest.raises(Refused):
        refuse_environment({"SITE_LIBRARY": "x"}, ["SITE_*"])
    refuse_environment({"SITE_LIBRARY": "x"}, ["SITE_LIBRARY"])
