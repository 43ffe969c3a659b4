"""The zeros, sizes and whole maps of `/pool/limits` against the contract's presence, bytes and entries."""

from __future__ import annotations

from typing import Any

import pytest
from edbjobs.v1 import cluster_pb2, job_pb2, resource_pb2
from edbjobs.v1.resource_pb2 import Limits as Message
from edbjobs.v1.resource_pb2 import UserLimits as User
from edbjobs_server.contract import codec
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.limits import Limits as Core
from edbjobs_server.core.principal import Principal, Role
from edbjobs_server.gateway.models import GIB, MIB, Limits, Partition, Queue, Resources
from edbjobs_server.gateway.rest import limits as module
from edbjobs_server.gateway.rest.limits import limit_settings, limits_request, update_limits
from edbjobs_server.manager.limits import changed
from google.protobuf.duration_pb2 import Duration

ADMIN = Principal("ann", Role.ADMIN)


def test_an_absent_limit_is_the_documented_zero() -> None:
    assert Limits.json_of(Message()) == {
        "max_concurrent_jobs": 2147483647,
        "max_cpu_percent": 0.0,
        "min_memory_gb": 0.0,
        "min_disk_gb": 0.0,
        "max_cores": 0,
        "max_memory_mib": 0,
        "max_cluster_jobs": 0,
        "licenses": {},
        "default_user": {"max_running_jobs": 0, "max_cores": 0},
        "users": {},
    }


def test_a_zero_of_the_contract_is_null_where_zero_is_no_limit() -> None:
    nothing = User(max_running_jobs=0, max_cores=0, max_priority=0)
    message = Message(
        max_local_jobs=0,
        max_cpu_percent=0,
        min_free_memory_bytes=0,
        max_cores=0,
        max_memory_bytes=0,
        max_cluster_jobs=0,
        licenses={"a": 0},
        users={"ann": nothing},
    )
    found = Limits.json_of(message)
    user = {"max_running_jobs": None, "max_cores": None, "max_priority": 0}
    assert (found["max_concurrent_jobs"], found["min_memory_gb"], found["licenses"]) == (0, 0.0, {"a": 0})
    assert [found[name] for name in ("max_cpu_percent", "max_cores", "max_memory_mib", "max_cluster_jobs")] == [
        None
    ] * 4
    assert found["users"] == {"ann": user}
    assert Limits.json_of(limits_request(found, message).limits) == found, "what is shown can be sent"


@pytest.mark.parametrize("gib", [0.1, 0.5, 2.0, 10, 123.456789])
def test_sizes_come_back_as_they_were_sent(gib: float) -> None:
    request = limits_request({"min_disk_gb": gib, "max_memory_mib": 3}, Message())
    assert (request.limits.min_free_disk_bytes, request.limits.max_memory_bytes) == (round(gib * GIB), 3 * MIB)
    found = Limits.json_of(request.limits)
    assert (found["min_disk_gb"], found["max_memory_mib"]) == (gib, 3)


@pytest.mark.parametrize(
    ("body", "given", "removed"),
    [
        ({"max_concurrent_jobs": 0}, Message(max_local_jobs=0), []),
        ({"max_concurrent_jobs": 2147483647}, Message(), ["max_local_jobs"]),
        ({"max_cpu_percent": 0}, Message(), ["max_cpu_percent"]),
        ({"max_cpu_percent": 100}, Message(), ["max_cpu_percent"]),
        ({"max_cpu_percent": 99.5, "max_cores": 2}, Message(max_cpu_percent=99.5, max_cores=2), []),
        (
            {"min_memory_gb": 0, "min_disk_gb": 0, "max_memory_mib": 0, "max_cluster_jobs": 0, "max_cores": 0},
            Message(),
            [
                *("min_free_memory_bytes", "min_free_disk_bytes", "max_memory_bytes"),
                *("max_cluster_jobs", "max_cores"),
            ],
        ),
        ({"default_user": {"max_cores": 0, "max_priority": 0}}, Message(default_user=User(max_priority=0)), []),
        ({"default_user": {}}, Message(default_user=User()), []),
    ],
)
def test_a_documented_zero_removes_a_limit(body: dict[str, Any], given: Message, removed: list[str]) -> None:
    request = limits_request(body, Message(max_cores=1, etag="e"))
    assert (request.limits, list(request.remove_mask.paths)) == (given, removed)


def test_maps_are_replaced_whole_under_the_etag() -> None:
    old = Core(licenses={"a": 1, "b": 2}, users={"ann": Core().of_user("")})
    body = {"licenses": {"b": 3, "c": 0}, "users": {"eve": {"max_cores": 2, "max_running_jobs": 0}}}
    request = limits_request(body, codec.limits_to_message(old))
    assert (list(request.remove_licenses), list(request.remove_users)) == (["a"], ["ann"])
    found = Limits.json_of(codec.limits_to_message(changed(old, request)))
    assert found["licenses"] == {"b": 3, "c": 0}
    assert found["users"] == {"eve": {"max_running_jobs": 0, "max_cores": 2}}
    with pytest.raises(Refused) as refused:
        changed(Core(licenses={"a": 1}), request)
    assert refused.value.reason == "ETAG_MISMATCH"


class Manager:
    """Limits that others change in between, so many times."""

    def __init__(self, interruptions: int) -> None:
        self.core = Core()
        self.left = interruptions

    def limits(self) -> resource_pb2.Limits:
        return codec.limits_to_message(self.core)

    async def update_limits(self, request: Any, principal: Principal) -> tuple[Message, Message]:
        if self.left:
            self.left -= 1
            self.core = Core(licenses={f"others{self.left}": 1})
        old, self.core = self.core, changed(self.core, request)
        return codec.limits_to_message(self.core), codec.limits_to_message(old)


async def test_a_change_that_met_another_one_is_made_again() -> None:
    manager: Any = Manager(3)
    found = await update_limits(manager, {"licenses": {"mine": 2}}, ADMIN)
    assert found["licenses"] == {"mine": 2}
    busy: Any = Manager(module._TRIES)
    with pytest.raises(Refused) as refused:
        await update_limits(busy, {"licenses": {"mine": 2}}, ADMIN)
    assert refused.value.reason == "OVERLOADED"


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"max_concurrent_jobs": -1}, {"max_concurrent_jobs": "must not be negative"}),
        ({"max_memory_mib": -1}, {"max_memory_mib": "must not be negative"}),
        ({"min_memory_gb": -0.5}, {"min_memory_gb": "must be a number that is not negative"}),
        ({"max_cpu_percent": 101}, {"max_cpu_percent": "must be between 0 and 100"}),
        ({"max_local_jobs": 1}, {"max_local_jobs": "no such limit"}),
        ({"etag": "x", "max_cores": True}, {"etag": "no such limit", "max_cores": "expected an integer"}),
        ({"users": {"ann": {"x": 1}}}, {"users": "does not match edbjobs.v1.Limits"}),
        (
            {"users": {"ann": None}, "licenses": [1]},
            dict.fromkeys(("users", "licenses"), "does not match edbjobs.v1.Limits"),
        ),
        ({"users": None}, {"users": "does not match edbjobs.v1.Limits"}),
        ({"licenses": None}, {"licenses": "expected an object"}),
        ({"default_user": None}, {"default_user": "does not match edbjobs.v1.Limits"}),
        (
            {"default_user": 3, "min_disk_gb": None},
            {"default_user": "does not match edbjobs.v1.Limits", "min_disk_gb": "expected a number"},
        ),
    ],
)
async def test_what_is_wrong_has_its_documented_name(body: dict[str, Any], wrong: dict[str, str]) -> None:
    manager: Any = Manager(0)
    with pytest.raises(Refused) as refused:
        await update_limits(manager, body, ADMIN)
    assert (refused.value.reason, refused.value.fields) == ("INVALID_LIMITS", wrong)
    assert all(f"{name}: {what}" in refused.value.message for name, what in wrong.items())


def test_documented_limits_as_settings() -> None:
    given = {"max_concurrent_jobs": 0, "min_disk_gb": 1.5, "min_memory_gb": 0, "max_cpu_percent": 100, "scheduler": "x"}
    assert limit_settings(given) == {
        "max_local_jobs": 0,
        "min_free_disk_bytes": 3 * GIB // 2,
        "min_free_memory_bytes": "none",
        "max_cpu_percent": "none",
        "scheduler": "x",
    }


def test_the_queue_as_documented() -> None:
    message = resource_pb2.QueueStatus(
        queued=7,
        starting=2,
        queued_by_priority={0: 5, 3: 2},
        held=1,
        scheduled=4,
        running=9,
        local_runs=3,
        reserved=job_pb2.Reservation(cores=5, memory_bytes=MIB + 1, licenses={"a": 1}),
        blocked_message="disk: full",
    )
    found = Queue.of(message, Message(), {0: 4, 3: 1, -2: 1}, draining=False).model_dump()
    assert (found["total_queued"], found["regular_queue_size"]) == (5, 4)
    assert list(found["priority_queues"].items()) == [("-2", 1), ("3", 1)]
    assert (found["running_jobs"], found["max_concurrent"]) == (3, 2147483647)
    assert (found["cores_reserved"], found["memory_reserved_mib"]) == (5, 2)
    assert (found["gate"], found["draining"]) == ("disk: full", False)
    assert Queue.of(message, Message(max_local_jobs=0), {}, draining=True).model_dump()["gate"] is None
    message.paused = True
    paused = Queue.of(message, Message(max_local_jobs=0), {}, draining=False).model_dump()
    assert (paused["gate"], paused["max_concurrent"]) == (None, 0)


def test_a_volume_that_does_not_respond_is_left_out() -> None:
    volumes = [
        resource_pb2.Volume(path="/state", total_bytes=1, unreachable=True),
        resource_pb2.Volume(path="/tmp", total_bytes=4 * GIB, free_bytes=GIB),
    ]
    host = resource_pb2.HostResources(memory_total_bytes=200, memory_used_bytes=50, volumes=volumes)
    found = Resources.json_of(host)
    assert [disk["path"] for disk in found["disks"]] == ["/tmp"]
    assert (found["disk_usage_percent"], found["disk_free_gb"], found["memory_percent"]) == (75.0, 1.0, 25.0)


def test_numbers_of_a_partition_that_are_not_known_are_0() -> None:
    found = Partition.json_of(cluster_pb2.Partition(name="p", is_default=True, cores_total=4))
    assert (found["cores_total"], found["cores_used"], found["memory_used_gb"]) == (4, 0, 0.0)
    assert (found["default"], found["time_limit_seconds"]) == (True, None)
    limited = cluster_pb2.Partition(time_limit=Duration(seconds=60))
    assert Partition.json_of(limited)["time_limit_seconds"] == 60
