"""Configurations as the documented JSON text, equal to `HFSSSimulationConfig.to_dict`.

A list may have 100,000 of them, so the model writes each *kind* of configuration once: the configuration without
the fields that differ from job to job. Their values are inserted into the text of the kind.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, NamedTuple

from edbjobs._enums import to_number
from edbjobs.v1 import job_config_pb2

from edbjobs_server.contract.accepted import accepted_config
from edbjobs_server.gateway.documented.config import HFSSSimulationConfig
from edbjobs_server.gateway.documented.dictionary import DOCUMENTED, FORMAT_VERSION
from edbjobs_server.gateway.documented.translation import DEFAULT_SOLVER, MODES, from_job_config
from edbjobs_server.gateway.json_values import dumps

_FIELDS = HFSSSimulationConfig.model_fields
# Documented fields, which are always present, and the fields of the message that their JSON values are made from.
_DIRECT = {
    "solver": "product",
    "ansys_edt_path": "aedt_path",
    "project_path": "project_path",
    "design_name": "design",
    "design_mode": "design_mode",
    "setup_name": "setup",
}
_READ_DIRECTLY = frozenset(_DIRECT.values())
_MODES = {to_number(mode): quoted(word) for mode, word in MODES.items()}
_NO_MODE = quoted("")
_SLASHES = "/\\"  # removed from the end of a project's path, as by the model
# The other fields, which are present where they are set, in the order of the model.
_ADDED = (*(name for name in _FIELDS if name not in DOCUMENTED), "explicit")
_DIRECT_ADDED: Mapping[str, Callable[[Any], str]] = {
    "aedt_version": quoted,
    "batch": quoted,
    "cores": str,
    **dict.fromkeys(("licenses", "environment", "labels", "batch_options"), lambda entries: dumps(dict(entries))),
}
_PLACES = _DIRECT.keys() | {
    "jobid",
    "user",
}  # these two are documented in the configuration, but are not part of its message
_KEPT_KINDS = 1024
_KEPT_BYTES = 4096  # size of a kind's message; a larger one is not cached


class _Kind(NamedTuple):
    """Text between the inserted documented fields, and texts of the other fields."""

    around: Sequence[str]
    added: Mapping[str, str]


def config_text(config: job_config_pb2.JobConfig, job_id: str, user: str, written: str) -> str:
    """Return the JSON text of a configuration; `written` is from `written_text`."""
    added: dict[str, str] = {}
    kind = _PLAIN
    for field, value in config.ListFields():
        name = field.name
        if name in _DIRECT_ADDED:
            added[name] = _DIRECT_ADDED[name](value)
        elif name not in _READ_DIRECTLY and kind is _PLAIN:
            kind = _kind_of(config)
    at = kind.around
    documented = (
        f"{at[0]}{quoted(config.product or DEFAULT_SOLVER)}{at[1]}{quoted(config.aedt_path)}{at[2]}{quoted(job_id)}"
        f"{at[3]}{quoted(user)}{at[4]}{quoted(config.project_path.rstrip(_SLASHES))}{at[5]}{quoted(config.design)}"
        f"{at[6]}{_MODES.get(config.design_mode, _NO_MODE)}{at[7]}{quoted(config.setup)}{at[8]}"
    )
    added.update(kind.added)
    if not added:
        return f"{{{documented},{written}}}"
    more = ",".join([f'"{name}":{added[name]}' for name in _ADDED if name in added])
    return f"{{{documented},{more},{written}}}"


def written_text() -> str:
    """Return the members that record where and when a configuration was written; a list shares them."""
    return (
        f'"platform":{quoted(platform.system())},"timestamp":"{datetime.now().astimezone().isoformat()}",'
        f'"version":"{FORMAT_VERSION}"'
    )


def _kind_of(config: job_config_pb2.JobConfig) -> _Kind:
    rest = job_config_pb2.JobConfig()
    rest.CopyFrom(config)
    for name in (*_READ_DIRECTLY, *_DIRECT_ADDED):
        rest.ClearField(name)  # type: ignore[arg-type]
    data = rest.SerializeToString(deterministic=True)
    return _kept_kind(data) if len(data) <= _KEPT_BYTES else _make_kind(data)


def _make_kind(data: bytes) -> _Kind:
    values = from_job_config(accepted_config(data, project_path="/any.aedt")).to_dict()
    parts = [""]
    for name in DOCUMENTED:
        parts[-1] += f'"{name}":' if len(parts) == 1 and not parts[0] else f',"{name}":'
        if name in _PLACES:
            parts.append("")
        else:
            parts[-1] += dumps(values[name])
    return _Kind(parts, {name: dumps(values[name]) for name in _ADDED if name in values})


_kept_kind = lru_cache(_KEPT_KINDS)(_make_kind)
_PLAIN = _make_kind(b"")
