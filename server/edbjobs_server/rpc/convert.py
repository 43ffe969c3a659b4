"""Small conversions that every servicer needs."""

from __future__ import annotations

from google.protobuf import duration_pb2, timestamp_pb2


def seconds(duration: duration_pb2.Duration) -> float:
    """Length of a duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def timestamp(time: float) -> timestamp_pb2.Timestamp:
    """Make a timestamp of seconds since the epoch."""
    whole = int(time // 1)
    return timestamp_pb2.Timestamp(seconds=whole, nanos=round((time - whole) * 1e6) * 1000)
