"""New limits are checked by the fields of the dataclass: a field of another type would be noticed here."""

from __future__ import annotations

import math
from typing import Any

import pytest
from edbjobs.v1 import resource_pb2
from edbjobs.v1.resources_service_pb2 import UpdateLimitsRequest
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.limits import Limits, UserLimits
from edbjobs_server.manager.limits import changed


def change(**values: Any) -> Limits:
    return changed(Limits(max_cores=3), UpdateLimitsRequest(limits=resource_pb2.Limits(**values)))


def test_only_what_is_set_is_changed() -> None:
    assert change(max_concurrent_jobs=4, licenses={"a": 0}) == Limits(
        max_cores=3, max_concurrent_jobs=4, licenses={"a": 0}
    )


def test_a_ceiling_of_priority_may_be_negative() -> None:
    user = resource_pb2.UserLimits(max_priority=-5)
    assert change(users={"ann": user}).users == {"ann": UserLimits(max_priority=-5)}


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"max_cores": -1}, {"max_cores": "must not be negative"}),
        ({"max_memory_mib": -1}, {"max_memory_mib": "must not be negative"}),
        ({"max_cpu_percent": 100.5}, {"max_cpu_percent": "must be between 0 and 100"}),
        ({"min_disk_gb": math.inf}, {"min_disk_gb": "must be a number that is not negative"}),
        ({"min_memory_gb": math.nan}, {"min_memory_gb": "must be a number that is not negative"}),
        ({"licenses": {"a": -1, "b": 1}}, {"licenses.a": "must not be negative"}),
        ({"default_user": resource_pb2.UserLimits(max_cores=-1)}, {"default_user": "must not be negative"}),
        (
            {"users": {"ann": resource_pb2.UserLimits(max_running_jobs=-1)}, "max_cluster_jobs": -2},
            {"users.ann": "must not be negative", "max_cluster_jobs": "must not be negative"},
        ),
    ],
)
def test_everything_wrong_is_named(values: dict[str, Any], wrong: dict[str, str]) -> None:
    with pytest.raises(Refused) as refused:
        change(**values)
    assert (refused.value.reason, refused.value.fields) == ("INVALID_LIMITS", wrong)
