from __future__ import annotations

import importlib
import pickle
import pkgutil
import subprocess
import sys
from pathlib import Path

import edbjobs
import pytest

PUBLIC_MODULES = (
    "_async_client",
    "_calls",
    "_client",
    "_endpoint",
    "_enums",
    "_exceptions",
    "_models",
    "_wait_timeout",
    "config",
)
# What these modules share with the rest of the package only.
INTERNAL = {
    "Call",
    "DEFAULT_TARGET",
    "Submittable",
    "Target",
    "Word",
    "absolute_project_path",
    "from_number",
    "optional_from_number",
    "process_start",
    "remove_endpoint",
    "resolve_target",
    "to_number",
}


def test_everything_public_is_exported_and_nothing_else() -> None:
    found = set()
    for name in PUBLIC_MODULES:
        found |= set(importlib.import_module(f"edbjobs.{name}").__all__)
    assert set(edbjobs.__all__) == (found - INTERNAL) | {"__version__"}
    assert len(edbjobs.__all__) == len(set(edbjobs.__all__))


def test_every_export_can_be_had() -> None:
    for name in edbjobs.__all__:
        assert getattr(edbjobs, name) is getattr(edbjobs, name)
    assert dir(edbjobs) == sorted(edbjobs.__all__)


def test_other_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="NoSuchName"):
        _ = edbjobs.NoSuchName


def test_every_module_lists_its_public_names() -> None:
    for module in pkgutil.iter_modules(edbjobs.__path__):
        if not module.ispkg and module.name not in ("_version",):
            loaded = importlib.import_module(f"edbjobs.{module.name}")
            assert all(hasattr(loaded, name) for name in loaded.__all__), module.name


def test_the_package_is_typed() -> None:
    assert (Path(edbjobs.__path__[0]) / "py.typed").exists()


def test_importing_the_package_loads_neither_grpc_nor_pydantic() -> None:
    code = "import sys, edbjobs; print([m for m in ('grpc', 'pydantic', 'google.protobuf') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_the_configuration_models_do_without_grpc() -> None:
    make = "from edbjobs import JobConfig as C; C(project_path='/a.aedb').to_message()"
    code = f"import sys; {make}; print('grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_looking_at_jobs_takes_no_pydantic() -> None:
    code = "import sys; from edbjobs import Client; Client('127.0.0.1:1'); print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_every_error_is_in_the_one_tree_and_in_its_drawing() -> None:
    from edbjobs import _exceptions

    for name in _exceptions.__all__:
        kind = getattr(edbjobs, name)
        assert issubclass(kind, edbjobs.EdbJobsError)
        assert name in (_exceptions.__doc__ or "")


def test_errors_survive_pickling() -> None:
    job = edbjobs.Job("u1", "j1", edbjobs.JobState.RUNNING)
    for error in (
        edbjobs.NotFoundError("gone", reason="JOB_NOT_FOUND", fields={"a": "b"}, metadata={"c": "d"}),
        edbjobs.WaitTimeoutError("late", job),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
