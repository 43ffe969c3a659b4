"""The documented dictionary form of a configuration.

Every documented field is always present in it, so a value that equals its documented default may not have been
set by the user. For the fields of `_DEFAULTS` the default is ignored: the documented job manager never passed
``-auto`` and ``-distributed`` to a local run although both default to True, and the layout options would
override AEDT's own setup, among them a temporary folder of the client's machine that the solving host may not
have. If such a value was set explicitly, the key ``explicit`` contains its name, so that a conversion to the
dictionary and back loses nothing.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from edbjobs_server.gateway.documented.fields import ConfigFields
from edbjobs_server.gateway.documented.parts import HFSS3DLayoutBatchOptions, MachineNode, SchedulerOptions

FORMAT_VERSION = "1.0.0"
_WRITTEN_ONLY = frozenset({"platform", "timestamp", "version"})
_DEFAULTS: Mapping[str, Any] = {"auto": True, "distributed": True}
_LAYOUT_DEFAULTS: Mapping[str, Any] = {
    "create_starting_mesh": False,
    "default_process_priority": "Normal",
    "enable_gpu": False,
    "mpi_vendor": "Intel",
    "mpi_version": "Default",
    "remote_spawn_command": "Scheduler",
    "solve_adaptive_only": False,
    "validate_only": False,
}
DOCUMENTED = (
    "solver",
    "ansys_edt_path",
    "jobid",
    "user",
    "distributed",
    "machine_nodes",
    "auto",
    "non_graphical",
    "monitor",
    "layout_options",
    "project_path",
    "design_name",
    "design_mode",
    "setup_name",
    "scheduler_type",
    "scheduler_options",
)
_DOCUMENTED_NODE = ("hostname", "cores", "max_cores", "utilization")
_DOCUMENTED_SCHEDULER = (
    "queue",
    "time",
    "nodes",
    "tasks_per_node",
    "cores_per_node",
    "memory",
    "account",
    "reservation",
    "qos",
    "constraints",
    "exclusive",
    "gpus",
    "gpu_type",
    "priority",
    "email_notification",
    "run_as_administrator",
)


def read_dict(data: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the documented form to arguments of `HFSSSimulationConfig`.

    None and ``user: "unknown"`` count as absent. An absent design, setup or mode stays empty, which
    solves everything; the documented defaults ``main``, ``Setup1`` are designs and setups that most
    projects do not have.
    """
    values = {key: value for key, value in data.items() if value is not None and key not in _WRITTEN_ONLY}
    explicit = values.pop("explicit", ())
    if values.get("user") == "unknown":
        del values["user"]
    for name, default in _DEFAULTS.items():
        if values.get(name) == default and name not in explicit:
            values.pop(name, None)
    if isinstance(layout := values.get("layout_options"), Mapping):
        values["layout_options"] = {
            name: value
            for name, value in layout.items()
            if value is not None and (f"layout_options.{name}" in explicit or not _layout_default(name, value))
        }
    for name in ("scheduler_options", "retry"):
        if isinstance(part := values.get(name), Mapping):
            values[name] = {key: value for key, value in part.items() if value is not None}
    return values


def write_dict(config: ConfigFields) -> dict[str, Any]:
    """Convert a configuration to the documented form."""
    layout, explicit = _write_layout(config.layout_options)
    values = config.model_dump(mode="json", exclude_defaults=True)
    documented: dict[str, Any] = {name: getattr(config, name) for name in DOCUMENTED}
    for name, default in _DEFAULTS.items():
        if documented[name] == default:
            explicit.append(name)
        elif documented[name] is None:
            documented[name] = default
    documented.update(
        machine_nodes=[_with_documented(node, _DOCUMENTED_NODE) for node in config.machine_nodes],
        layout_options=layout,
        scheduler_type=str(config.scheduler_type),
        scheduler_options=_with_documented(config.scheduler_options, _DOCUMENTED_SCHEDULER),
    )
    added = {name: value for name, value in values.items() if name not in documented}
    if explicit:
        added["explicit"] = sorted(explicit)
    written = {
        "platform": platform.system(),
        "timestamp": datetime.now().astimezone().isoformat(),
        "version": FORMAT_VERSION,
    }
    return {**documented, **added, **written}


def _with_documented(model: MachineNode | SchedulerOptions, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        **{name: getattr(model, name) for name in names},
        **model.model_dump(mode="json", exclude_defaults=True),
    }


def _write_layout(options: HFSS3DLayoutBatchOptions) -> tuple[dict[str, Any], list[str]]:
    values = {**_LAYOUT_DEFAULTS, "temp_directory": tempfile.gettempdir()}
    explicit = []
    for name, value in options.model_dump(exclude_none=True).items():
        values[name] = value
        if _layout_default(name, value):
            explicit.append(f"layout_options.{name}")
    return values, explicit


def _layout_default(name: str, value: Any) -> bool:
    if name == "temp_directory":
        return _is_temporary(str(value))
    return name in _LAYOUT_DEFAULTS and bool(value == _LAYOUT_DEFAULTS[name])


def _is_temporary(path: str) -> bool:
    # The client fills in its own tempfile.gettempdir(), and its operating system may be another one.
    plain = path.replace("\\", "/").rstrip("/").lower()
    return (
        path in ("", tempfile.gettempdir())
        or plain in ("/tmp", "/var/tmp", "c:/windows/temp")  # noqa: S108 - compared, not used
        or plain.endswith("/appdata/local/temp")
    )
