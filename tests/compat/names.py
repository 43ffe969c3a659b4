"""Print the public names of the documented modules as JSON: run by the Python of the old package, and by ours.

What stands in the result: classes, functions and constants that a module defines; of a class its methods, properties,
fields, enum members and the attributes that its methods set; of a callable its parameters and their defaults.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import inspect
import json
import textwrap
from typing import Any

BACKEND = "pyedb.workflows.job_manager.backend"
MODULES = (
    "job_manager_handler",
    "job_submission",
    "service",
    "start_service",
    "submit_local_job",
    "submit_batch_jobs",
    "submit_job_on_scheduler",
)
Names = dict[str, dict[str, str]]


def parameters(function: Any) -> dict[str, str]:
    """Return the parameters: name to default, ``-`` where there is none."""
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in ("self", "cls") or parameter.kind is parameter.VAR_KEYWORD:
            continue
        found[name] = "-" if parameter.default is parameter.empty else shown(parameter.default)
    return found


def shown(value: Any) -> str:
    """Write a default so that equal ones are equal in both packages."""
    if isinstance(value, enum.Enum):
        return repr(value.value)
    text = repr(value)
    return "<made>" if text.startswith("<") else text


def attributes(kind: type[Any]) -> set[str]:
    """Return the public attributes that the methods of a class set."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        and not node.attr.startswith("_")
    }


def members(kind: type[Any]) -> Names:
    """Return the public members of a class, those of its bases in the same package included."""
    found: Names = {"": {} if issubclass(kind, enum.Enum) else parameters(kind)}
    if issubclass(kind, enum.Enum):
        return found | {member.name: {"value": repr(member.value)} for member in kind}
    for base in reversed(kind.__mro__):
        if not base.__module__.startswith(("pyedb", "edbjobs")):
            continue
        found |= {name: {} for name in attributes(base)}
        for name, value in vars(base).items():
            if name.startswith("_") or name == "model_config":
                continue
            plain = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
            found[name] = parameters(plain) if inspect.isfunction(plain) else {}
    found |= {name: {} for name in getattr(kind, "model_fields", {})}
    if dataclasses.is_dataclass(kind):
        found |= {field.name: {} for field in dataclasses.fields(kind)}
    return found


def names(module_name: str) -> Names:
    """Return the public names of a module."""
    module = importlib.import_module(f"{BACKEND}.{module_name}")
    found: Names = {}
    for name, value in vars(module).items():
        if name.startswith("_") or inspect.ismodule(value):
            continue
        listed = name in getattr(module, "__all__", ())
        own = listed or getattr(value, "__module__", None) == module.__name__
        if inspect.isclass(value) and own:
            for member, found_parameters in members(value).items():
                found[f"{name}.{member}" if member else name] = found_parameters
        elif inspect.isfunction(value) and own:
            found[name] = parameters(value)
        elif isinstance(value, (str, int, float)) and name.isupper():
            found[name] = {"value": repr(value)}
    return found


if __name__ == "__main__":
    print(json.dumps({f"{module}.{name}": value for module in MODULES for name, value in names(module).items()}))
