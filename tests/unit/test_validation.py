"""A cached configuration equals one that is validated again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from edbjobs.config import JobConfig
from edbjobs.v1 import job_config_pb2
from edbjobs.v1 import jobs_messages_pb2 as pb
from edbjobs_server.core.errors import Refused
from edbjobs_server.manager import validation
from edbjobs_server.manager.validation import validate

NODE = job_config_pb2.Machine(hostname="n1", cores=4, memory_percent=90, tasks=2)


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    validation._model.cache_clear()
    yield
    validation._model.cache_clear()


def check(path: str, **values: Any) -> JobConfig:
    config = job_config_pb2.JobConfig(project_path=path, **values)
    valid = validate(pb.SubmitJobRequest(config=config))
    return valid.config.model_copy(update={"project_path": valid.project_path})


@pytest.mark.parametrize(
    "values", [{}, {"cores": 4, "labels": {"a": "1", "b": "2"}}, {"machines": [NODE], "environment": {"A": "ü"}}]
)
def test_a_cached_configuration_equals_a_new_one(values: dict[str, Any]) -> None:
    for path in ("/a/p.aedt", "/b/Ünï.aedb/", "C:\\x\\y.aedtz"):
        message = job_config_pb2.JobConfig(project_path=path, **values)
        assert check(path, **values) == JobConfig.from_message(message)
        assert check(path, **values).model_fields_set == JobConfig.from_message(message).model_fields_set
    assert validation._model.cache_info().currsize == 1


def test_errors_are_reported_as_for_the_first_request() -> None:
    check("/a/p.aedt")
    for path in ("", "p.aedt", "/a/p.txt", "/a/\n.aedt"):
        with pytest.raises(Refused) as refused:
            check(path)
        assert list(refused.value.fields) == ["config.project_path"]
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            check("p.aedt", cores=-1)
        assert set(refused.value.fields) == {"config.project_path", "config.cores"}
    assert validation._model.cache_info().currsize == 1


def test_a_long_configuration_is_not_cached() -> None:
    check("/a/p.aedt", environment={f"A{i}": "x" * 100 for i in range(30)})
    assert validation._model.cache_info().currsize == 0
