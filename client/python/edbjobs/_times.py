"""Conversion of times and durations to protobuf messages."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

__all__ = ["duration", "timestamp"]


def duration(value: timedelta) -> Duration:
    """Convert a timedelta to a Duration."""
    message = Duration()
    message.FromTimedelta(value)
    return message


def timestamp(value: datetime) -> Timestamp:
    """Convert an aware datetime to a Timestamp."""
    message = Timestamp()
    message.FromDatetime(value.astimezone(timezone.utc))
    return message
