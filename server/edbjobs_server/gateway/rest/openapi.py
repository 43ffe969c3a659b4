"""``/openapi.json``: generated from the table of operations and the models that it names."""

from __future__ import annotations

from functools import cache
from typing import Any

from aiohttp import web
from edbjobs._version import __version__
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from edbjobs_server.gateway.json_values import Json, dumps
from edbjobs_server.gateway.rest import bodies
from edbjobs_server.gateway.rest.operations import OPERATIONS, Operation
from edbjobs_server.gateway.rest.parsed_log import ParsedLog

_JSON = "application/json"
_REF = "#/components/schemas/{model}"
_PATH_PARAMETERS: dict[str, Json] = {
    "job_id": {"type": "string", "description": "uid, or an id, which addresses the newest job of that id"},
    "stream": {"type": "string", "enum": ["stdout", "stderr", "solver", "script"]},
}
_QUERY_PARAMETERS: dict[str, Json] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
    "page_token": {"type": "string", "description": "from the header X-Next-Page-Token"},
    "status": {"type": "string", "description": "one or more states, separated by commas"},
    "user": {"type": "string", "maxLength": 255},
    "batch": {"type": "string", "maxLength": 255},
    "scheduler": {
        "type": "string",
        "maxLength": 255,
        "description": "name of a cluster's scheduler; default: the detected one",
    },
    "after_revision": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    "attempt": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
}
_ERRORS = {
    400: "The request is not valid; see `reason` and `fields`",
    401: "A token is required",
    403: "The host name or the origin is not allowed",
    404: "The job does not exist",
    409: "Not possible in the present state of the job",
    413: "The body is too large",
    415: "The content type is not application/json",
    416: "The range is beyond the end",
    429: "Too many requests; see Retry-After",
    501: "Not implemented by this release",
    503: "Unavailable; see Retry-After",
}


async def answer(request: web.Request) -> web.Response:
    """Answer `GET /openapi.json`."""
    return web.Response(text=_text(), content_type=_JSON)


@cache
def _text() -> str:
    return dumps(document())


def document() -> Json:
    """Return the document."""
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edbjobs",
            "version": __version__,
            "description": "The documented job manager API over HTTP. Events: Socket.IO at /socket.io/, and "
            "JSON over a WebSocket at /ws/events. Metrics for Prometheus: /metrics.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {str(status): _error(text) for status, text in _ERRORS.items()},
        },
    }


class _Schemas(GenerateJsonSchema):
    """Schemas without titles, which only repeat the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _schemas() -> Json:
    """Return the schemas of all models that the operations name, and of those they refer to, by name."""
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(bodies.Error, "serialization")]
    for operation in OPERATIONS:
        if issubclass(operation.answer, BaseModel):
            models.append((operation.answer, "serialization"))
        if operation.body is not None:
            models.append((operation.body, "validation"))
    _, found = models_json_schema(models, ref_template=_REF, schema_generator=_Schemas)
    schemas: Json = found["$defs"]
    return schemas


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": _REF.format(model=model.__name__)}


def _error(text: str) -> Json:
    return {"description": text, "content": {_JSON: {"schema": _ref(bodies.Error)}}}


def _operation(operation: Operation) -> Json:
    place = "api_" if operation.path.startswith("/api/") and not operation.handler.startswith("api_") else ""
    found: Json = {
        "operationId": place + operation.handler,
        "summary": operation.summary,
        "parameters": _parameters(operation),
        "responses": _responses(operation),
    }
    if operation.body:
        required = operation.body is not bodies.Empty
        found["requestBody"] = {"required": required, "content": {_JSON: {"schema": _ref(operation.body)}}}
    if operation.open:
        found["security"] = []
    return found


def _parameters(operation: Operation) -> list[Json]:
    in_path = [name for name in _PATH_PARAMETERS if f"{{{name}}}" in operation.path]
    found: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": _PATH_PARAMETERS[name]} for name in in_path
    ]
    found += [{"name": name, "in": "query", "schema": _QUERY_PARAMETERS[name]} for name in operation.query]
    if operation.body in (bodies.Submit, bodies.ApiSubmit):
        key = {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[!-~]+$"}
        what = "makes the request repeatable: the same key returns the same job"
        found.append({"name": "Idempotency-Key", "in": "header", "schema": key, "description": what})
    return found


def _responses(operation: Operation) -> Json:
    content: Json = {"text/plain": {"schema": {"type": "string"}}}
    if issubclass(operation.answer, BaseModel):
        content = {_JSON: {"schema": _ref(operation.answer)}}
    statuses = {403, *operation.errors}
    if not operation.open:
        statuses |= {400, 401, 404, 429, 503} if "{" in operation.path else {400, 401, 429, 503}
    if operation.body:
        statuses |= {413, 415}
    found: Json = {"200": {"description": operation.summary, "content": content}}
    if operation.answer is str:
        found["206"] = {"description": "The requested range", "content": content}
    if operation.answer is ParsedLog:
        found["204"] = {"description": "There is no solver log yet"}
    found |= {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)}
    if operation.handler == "ready":
        found["503"] = {"description": "Not ready", "content": content}
    return found
