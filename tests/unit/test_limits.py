"""Changes of limits: by presence, whole or not at all, and only from what the caller saw."""

from __future__ import annotations

import math
from typing import Any

import pytest
from edbjobs.v1 import resource_pb2
from edbjobs.v1.resource_pb2 import UserLimits as User
from edbjobs.v1.resources_service_pb2 import UpdateLimitsRequest
from edbjobs_server.contract.codec import limits_to_message
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.limits import INITIAL_LIMITS, Limits, UserLimits
from edbjobs_server.manager.limits import changed
from google.protobuf.field_mask_pb2 import FieldMask

OLD = Limits(
    max_local_jobs=2,
    max_cores=3,
    max_cpu_percent=80.0,
    licenses={"a": 1, "b": 2},
    default_user=UserLimits(max_running_jobs=1, max_cores=4),
    users={"ann": UserLimits(max_running_jobs=5, max_cores=6, max_priority=7), "bob": UserLimits()},
)


def change(
    old: Limits = OLD,
    *,
    remove: tuple[str, ...] = (),
    remove_licenses: tuple[str, ...] = (),
    remove_users: tuple[str, ...] = (),
    **values: Any,
) -> Limits:
    request = UpdateLimitsRequest(
        limits=resource_pb2.Limits(**values),
        remove_mask=FieldMask(paths=remove),
        remove_licenses=remove_licenses,
        remove_users=remove_users,
    )
    return changed(old, request)


def refusal(**values: Any) -> Refused:
    with pytest.raises(Refused) as refused:
        change(**values)
    return refused.value


def test_a_new_service_has_one_local_job_and_no_other_limit() -> None:
    assert Limits(max_local_jobs=1) == INITIAL_LIMITS


def test_what_is_set_replaces_and_0_is_a_limit() -> None:
    found = change(max_local_jobs=0, max_cpu_percent=0, min_free_disk_bytes=0)
    assert (found.max_local_jobs, found.max_cpu_percent, found.min_free_disk_bytes) == (0, 0.0, 0)
    assert (found.max_cores, found.max_memory_bytes, found.users) == (3, None, OLD.users)
    assert change() == OLD


def test_maps_are_changed_entry_by_entry_and_users_whole() -> None:
    assert change(licenses={"b": 0, "c": 9}).licenses == {"a": 1, "b": 0, "c": 9}
    found = change(users={"ann": User(max_cores=1)}, default_user=User(max_priority=-5))
    assert found.users == {"ann": UserLimits(max_cores=1), "bob": UserLimits()}
    assert found.default_user == UserLimits(max_priority=-5)
    assert change(users={"AnnLee": User()}).users["AnnLee"] == UserLimits(), "a user without limits is exempt"
    assert change(default_user=User()).default_user is None


@pytest.mark.parametrize(
    ("remove", "left"),
    [
        ({"remove": ("max_cores", "max_cpu_percent")}, {"max_cores": None, "max_cpu_percent": None}),
        ({"remove": ("max_cluster_jobs",)}, {}),
        ({"remove": ("default_user.max_cores",)}, {"default_user": UserLimits(max_running_jobs=1)}),
        ({"remove": ("default_user.max_cores", "default_user.max_running_jobs")}, {"default_user": None}),
        ({"remove": ("default_user",)}, {"default_user": None}),
        ({"remove": ("licenses", "users")}, {"licenses": {}, "users": {}}),
        (
            {"remove_licenses": ("a", "none"), "remove_users": ("ann",)},
            {"licenses": {"b": 2}, "users": {"bob": UserLimits()}},
        ),
    ],
)
def test_what_is_removed_is_no_limit(remove: dict[str, Any], left: dict[str, Any]) -> None:
    found = change(**remove)
    for name in Limits.__dataclass_fields__:
        assert getattr(found, name) == left.get(name, getattr(OLD, name)), name


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"max_cores": 1, "remove": ("max_cores",)}, "max_cores"),
        ({"default_user": User(max_cores=1), "remove": ("default_user",)}, "default_user"),
        ({"default_user": User(max_cores=1), "remove": ("default_user.max_cores",)}, "default_user.max_cores"),
        ({"users": {"eve": User()}, "remove": ("users",)}, "users"),
        ({"users": {"eve": User()}, "remove_users": ("eve",)}, "users.eve"),
        ({"licenses": {"a": 1}, "remove_licenses": ("a",)}, "licenses.a"),
    ],
)
def test_what_is_set_and_removed_is_refused(values: dict[str, Any], field: str) -> None:
    refused = refusal(**values)
    assert (refused.reason, refused.fields) == ("INVALID_LIMITS", {field: "is set and removed"})


def test_a_part_of_the_default_user_may_be_removed_beside_others_that_are_set() -> None:
    found = change(default_user=User(max_priority=1), remove=("default_user.max_cores",))
    assert found.default_user == UserLimits(max_priority=1)


@pytest.mark.parametrize("path", ["", "etag", "max_core", "users.ann", "licenses.a", "default_user.name", "users.*"])
def test_no_other_path_can_be_removed(path: str) -> None:
    assert refusal(remove=(path,)).fields == {path: "no such limit"}


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"max_cores": -1}, {"max_cores": "must not be negative"}),
        ({"max_memory_bytes": -1}, {"max_memory_bytes": "must not be negative"}),
        ({"max_cpu_percent": 100.5}, {"max_cpu_percent": "must be between 0 and 100"}),
        ({"max_cpu_percent": math.nan}, {"max_cpu_percent": "must be between 0 and 100"}),
        ({"min_free_disk_bytes": -1}, {"min_free_disk_bytes": "must not be negative"}),
        ({"licenses": {"a": -1, "b": 1}}, {"licenses.a": "must not be negative"}),
        ({"default_user": User(max_cores=-1)}, {"default_user": "must not be negative"}),
        (
            {"users": {"ann": User(max_running_jobs=-1)}, "max_cluster_jobs": -2},
            {"users.ann": "must not be negative", "max_cluster_jobs": "must not be negative"},
        ),
        ({"max_cores": -1, "remove": ("x",)}, {"x": "no such limit", "max_cores": "must not be negative"}),
    ],
)
def test_everything_wrong_is_named(values: dict[str, Any], wrong: dict[str, str]) -> None:
    refused = refusal(**values)
    assert (refused.reason, refused.fields) == ("INVALID_LIMITS", wrong)


def test_with_an_etag_only_what_the_caller_saw_is_changed() -> None:
    etag = limits_to_message(OLD).etag
    assert change(max_cores=4, etag=etag).max_cores == 4
    refused = refusal(max_cores=4, etag="of others")
    assert (refused.reason, refused.metadata) == ("ETAG_MISMATCH", {"etag": etag})
    assert change(max_cores=3, etag="of others") == OLD, "a change that changes nothing succeeds"
    assert change(remove=("max_cluster_jobs",), etag="of others") == OLD
