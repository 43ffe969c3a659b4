"""Every operation of /openapi.json with requests made from its schemas: no answer is a 5xx, and each conforms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from edbjobs_server.gateway.rest.openapi import document
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support.web import WebService, job_config

SCHEMA = schemathesis.openapi.from_dict(document())
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    with WebService(tmp_path_factory.mktemp("gateway"), max_local_jobs=2) as running:
        import requests

        folder = tmp_path_factory.mktemp("project")
        body = {"config": job_config(folder, jobid="0")}
        assert requests.post(running.url + "/jobs/submit", json=body, timeout=20).status_code == 200
        yield running


@SCHEMA.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
    database=None,
)
def test_no_request_breaks_it(case: Any, service: WebService) -> None:
    if "job_id" in case.path_parameters and len(case.path_parameters["job_id"]) == 1:
        case.path_parameters["job_id"] = "0"  # a job that there is
    response = case.call(base_url=service.url, timeout=20)
    case.validate_response(response, checks=CHECKS)
