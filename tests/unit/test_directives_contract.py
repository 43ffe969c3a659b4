"""Every scheduler checks requests alike: the same bad request names the same fields, all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from edbjobs.config import SchedulerOptions
from edbjobs_server.core.errors import Refused
from edbjobs_server.executors.base import Allocation
from edbjobs_server.executors.schedulers.lsf.directives import directives_of as lsf
from edbjobs_server.executors.schedulers.pbs.directives import directives_of as pbs
from edbjobs_server.executors.schedulers.slurm.directives import directives as slurm
from edbjobs_server.executors.schedulers.windows_hpc.properties import job_properties
from hypothesis import given
from hypothesis import strategies as st

SCHEDULERS: dict[str, Callable[[Allocation], Sequence[str]]] = {
    "slurm": slurm,
    "lsf": lambda allocation: lsf(allocation, old=False),
    "lsf, old": lambda allocation: lsf(allocation, old=True),
    "pbs": pbs,
    "windows_hpc": lambda allocation: [f"{name}={value}" for name, value in job_properties(allocation).items()],
}
NAME = "edb-board-0123456789abcdef-1"
TEXTS = (
    *("account", "partition", "reservation", "qos", "constraint", "gpu_type"),
    *("include_nodes", "exclude_nodes", "wckey"),
)
HOSTILE = ["a\n#SBATCH --wrap=id", "a\r\nb", "a\u2028b", 'a"b', "a'b", "a`id`", "$(id)", "a;id", "a\\b", "-x"]


def allocation(**options: Any) -> Allocation:
    values = {"gpus_per_node": 1, **options}
    for name in ("include_nodes", "exclude_nodes"):
        if name in values:
            values[name] = [values[name]]
    made = SchedulerOptions.model_construct(**values)
    return Allocation(
        NAME, "c", partition=options.get("partition", ""), account=options.get("account", ""), options=made
    )


def refused(scheduler: str, request: Allocation) -> set[str]:
    with pytest.raises(Refused) as error:
        SCHEDULERS[scheduler](request)
    assert error.value.reason == "INVALID_JOB"
    assert "\n" not in error.value.message
    return {field.removeprefix("config.scheduler_options.") for field in error.value.fields}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("text", HOSTILE)
def test_a_bad_request_names_all_its_fields(scheduler: str, text: str) -> None:
    request = allocation(gpus_per_node=0, **dict.fromkeys(TEXTS, text), email=text, extra={"a b": text})
    assert refused(scheduler, request) == {*TEXTS, "email", "extra.a b"}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_kind_of_gpu_needs_a_number(scheduler: str) -> None:
    assert "gpu_type" in refused(scheduler, allocation(gpus_per_node=0, gpu_type="a100"))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_running_elevated_is_never_ignored(scheduler: str) -> None:
    assert "run_as_administrator" in refused(scheduler, allocation(gpus_per_node=0, run_as_administrator=True))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@given(field=st.sampled_from(TEXTS), text=st.text(max_size=30))
def test_no_value_adds_a_line(scheduler: str, field: str, text: str) -> None:
    try:
        lines = SCHEDULERS[scheduler](allocation(**{field: text}))
    except Refused:
        return
    assert all(line.isprintable() for line in lines)
