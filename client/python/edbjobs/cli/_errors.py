"""Error messages and exit codes of the command."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

__all__ = ["FAILED", "INTERRUPTED", "UNREACHABLE", "fail", "readable_errors"]

FAILED = 1  # the job or the solve failed, or the service refused
UNREACHABLE = 2  # wrong usage, or no service
INTERRUPTED = 130


@contextmanager
def readable_errors() -> Iterator[None]:
    """Convert expected errors to a message and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output, for example `head`, has ended. Redirected, so that Python's flush of standard
        # output at exit does not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except Exception as error:
        message = _describe(error)
        if message is None:
            raise
        _print_error(message)
        sys.exit(message["code"])


def fail(text: str, *, code: int = UNREACHABLE, reason: str = "") -> NoReturn:
    """Exit the command with an error message."""
    _print_error({"message": text, "reason": reason, "fields": {}, "code": code})
    raise typer.Exit(code)


def _describe(error: Exception) -> dict[str, Any] | None:
    from edbjobs._exceptions import ConnectError, DeadlineError, EdbJobsError, TargetError
    from edbjobs._wait_timeout import WaitTimeoutError

    if isinstance(error, EdbJobsError):
        unreachable = isinstance(error, (ConnectError, DeadlineError, TargetError))
        code = UNREACHABLE if unreachable and not isinstance(error, WaitTimeoutError) else FAILED
        return {"message": error.message, "reason": error.reason, "fields": error.fields, "code": code}
    if type(error).__name__ == "ValidationError":
        from pydantic import ValidationError

        from edbjobs.config import field_errors

        if isinstance(error, ValidationError):
            fields = field_errors(error)
            return {
                "message": "the job's configuration is invalid",
                "reason": "INVALID_JOB",
                "fields": fields,
                "code": UNREACHABLE,
            }
    return None


def _print_error(message: dict[str, Any]) -> None:
    if "--json" in sys.argv:
        print(json.dumps({"error": {key: value for key, value in message.items() if key != "code"}}))
        return
    print(f"edbjobs: {message['message']}", file=sys.stderr)
    for field, text in message["fields"].items():
        if text not in message["message"]:
            print(f"  {field}: {text}", file=sys.stderr)
