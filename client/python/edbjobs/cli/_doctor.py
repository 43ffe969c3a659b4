"""The command `doctor`: print the results of the service's checks, or rebuild a lost store."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from rich.text import Text

from edbjobs.cli._errors import fail
from edbjobs.cli._output import show_table, write_json

__all__ = ["load", "rebuild", "run"]

MARKS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}


def load(settings: ModuleType, values: dict[str, Any], config: Path | None) -> Any:
    """Load the settings that the service would start with."""
    try:
        return settings.load_settings(values, config)
    except settings.SettingsError as error:
        fail(str(error))


def rebuild(doctor: ModuleType, settings: Any, json: bool) -> None:
    """Rebuild the store from the records of the runs, and print the result."""
    try:
        report = doctor.rebuild(settings)
    except doctor.StoreError as error:
        fail(str(error))
    if json:
        write_json(report)
        return
    print(f"{report.jobs} jobs in the new store, {report.live} of them with a run that has not ended on record")
    print(report.note)
    if report.kept:
        print(f"the old store is kept as {report.kept}")
    for folder in report.damaged:
        print(f"skipped, its record is incomplete: {folder}")


def run(doctor: ModuleType, settings: Any, network: bool, json: bool) -> bool:
    """Run the checks and print them; return True if one failed."""
    checks = doctor.run_checks(settings, network=network)
    if json:
        write_json(checks)
    else:
        rows = [(Text(*MARKS[str(check.status)]), check.name, _text(check)) for check in checks]
        show_table(("", "check", "found"), rows)
    return any(str(check.status) == "fail" for check in checks)


def _text(check: Any) -> str:
    return f"{check.text}\n-> {check.advice}" if check.advice else str(check.text)
