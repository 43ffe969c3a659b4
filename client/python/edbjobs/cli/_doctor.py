"""The command `doctor`: prints what the service's own checks find."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from rich.text import Text

from edbjobs.cli._errors import fail
from edbjobs.cli._output import show_table, write_json

__all__ = ["run"]

MARKS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}


def run(settings: ModuleType, doctor: ModuleType, values: dict[str, Any], config: Path | None, json: bool) -> bool:
    """Run the checks and print them; True if one failed."""
    try:
        loaded = settings.load_settings(values, config)
    except settings.SettingsError as error:
        fail(str(error))
    checks = doctor.run_checks(loaded)
    if json:
        write_json(checks)
    else:
        rows = [(Text(*MARKS[str(check.status)]), check.name, _text(check)) for check in checks]
        show_table(("", "check", "found"), rows)
    return any(str(check.status) == "fail" for check in checks)


def _text(check: Any) -> str:
    return f"{check.text}\n-> {check.advice}" if check.advice else str(check.text)
