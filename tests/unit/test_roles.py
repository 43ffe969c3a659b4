"""Roles: what each RPC needs, and what callers may do with the jobs of others; with made-up principals."""

from __future__ import annotations

import pytest
from edbjobs.v1 import cluster_service_pb2, jobs_service_pb2, principal_pb2, resources_service_pb2
from edbjobs_server.auth import roles
from edbjobs_server.core.errors import Refused
from edbjobs_server.core.principal import Authentication, Principal, Role

SERVICES = [
    service
    for file in (jobs_service_pb2, resources_service_pb2, cluster_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
]
RPCS = [method.name for service in SERVICES for method in service.methods]
READING = ("Get", "List", "Watch", "Wait", "Read", "Tail", "Preview", "Inspect")
NOBODY, VIEWER, USER, ADMIN = (Principal(f"a {role.name}", role, user="ann") for role in Role)


def allowed(principal: Principal, method: str) -> bool:
    try:
        roles.require_rpc(principal, method)
    except Refused:
        return False
    return True


@pytest.mark.parametrize("name", RPCS)
def test_reading_needs_a_viewer_and_every_other_rpc_more(name: str) -> None:
    who = [principal.role for principal in (NOBODY, VIEWER, USER, ADMIN) if allowed(principal, f"/edbjobs.v1.X/{name}")]
    if name.startswith(READING):
        assert who == [Role.VIEWER, Role.USER, Role.ADMIN]
    elif name in ("UpdateLimits", "PauseQueue", "ResumeQueue"):
        assert who == [Role.ADMIN]
    else:
        assert who == [Role.USER, Role.ADMIN]


@pytest.mark.parametrize(
    ("principal", "user", "may"),
    [(USER, "ann", True), (USER, "bob", False), (ADMIN, "bob", True), (VIEWER, "ann", False), (NOBODY, "ann", False)],
)
def test_only_administrators_act_for_other_users(principal: Principal, user: str, may: bool) -> None:
    if may:
        roles.require_user(principal, user, "change it")
    else:
        with pytest.raises(Refused, match="may not change it"):
            roles.require_user(principal, user, "change it")


def test_a_refusal_names_the_role_and_the_one_that_is_needed() -> None:
    with pytest.raises(Refused) as caught:
        roles.require_user(USER, "bob", "cancel job x")
    assert caught.value.metadata == {"role": "ROLE_USER", "required_role": "ROLE_ADMIN"}
    with pytest.raises(Refused) as caught:
        roles.require_rpc(NOBODY, "GetJob")
    assert caught.value.metadata == {"role": "ROLE_UNSPECIFIED", "required_role": "ROLE_VIEWER"}


def test_environment_is_for_the_user_and_administrators_and_details_for_administrators() -> None:
    everybody = (NOBODY, VIEWER, USER, ADMIN)
    assert [roles.may_see_environment(who, "bob") for who in everybody] == [False, False, False, True]
    assert [roles.may_see_environment(who, "ann") for who in everybody] == [False, True, True, True]
    assert [roles.may_see_details(who) for who in everybody] == [False, False, False, True]


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [(Role, principal_pb2.Role, "ROLE_"), (Authentication, principal_pb2.Authentication, "AUTHENTICATION_")],
)
def test_numbers_are_those_of_the_contract(ours: type[Role | Authentication], theirs: object, prefix: str) -> None:
    names = {value.number: value.name for value in theirs.DESCRIPTOR.values}  # type: ignore[attr-defined]
    assert {member.value: prefix + member.name.replace("UNKNOWN", "UNSPECIFIED") for member in ours} == names
