"""Times and durations as messages."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

__all__ = ["duration", "timestamp"]


def duration(value: timedelta) -> Duration:
    """Make a Duration."""
    message = Duration()
    message.FromTimedelta(value)
    return message


def timestamp(value: datetime) -> Timestamp:
    """Make a Timestamp from an aware datetime."""
    message = Timestamp()
    message.FromDatetime(value.astimezone(timezone.utc))
    return message
