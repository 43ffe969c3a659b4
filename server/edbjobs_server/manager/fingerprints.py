"""Fingerprints of requests, by which a repetition is told from another request.

Each is of what was sent, presence included and maps without order. It has two halves: one of configuration, priority
and hold, which is equal for requests of equal jobs, and one of all else but the request_id.
"""

from __future__ import annotations

import hashlib

from edbjobs.v1 import job_pb2, jobs_messages_pb2

_HALF = 16


def fingerprint(request: jobs_messages_pb2.SubmitJobRequest) -> bytes:
    """Return the fingerprint of a submission."""
    parts = b"SubmitJob", request.job_id.encode(), request.user.encode()
    return _of_job(request) + _of(*parts)


def retry_fingerprint(request: jobs_messages_pb2.RetryJobRequest, old: job_pb2.Job) -> bytes:
    """Return the fingerprint of a retry; the job to retry is not in it, as it may be named in two ways."""
    job = jobs_messages_pb2.SubmitJobRequest(config=old.config, priority=old.priority)
    return _of_job(job) + _of_retry(request)


def is_retry(digest: bytes, request: jobs_messages_pb2.RetryJobRequest) -> bool:
    """Return whether a fingerprint is that of such a retry."""
    return digest[_HALF:] == _of_retry(request)


def is_equal_job(one: bytes, other: bytes) -> bool:
    """Return whether two fingerprints are of equal configurations, priorities and holds."""
    return one[:_HALF] == other[:_HALF]


def _of_job(request: jobs_messages_pb2.SubmitJobRequest) -> bytes:
    config = request.config.SerializeToString(deterministic=True)
    return _of(config, b"%d %d" % (request.priority, request.hold))


def _of_retry(request: jobs_messages_pb2.RetryJobRequest) -> bytes:
    rest = jobs_messages_pb2.RetryJobRequest()
    rest.CopyFrom(request)
    rest.ClearField("job")
    rest.request_id = ""
    return _of(b"RetryJob", rest.SerializeToString(deterministic=True))


def _of(*parts: bytes) -> bytes:
    """Digest parts, each with its length before it, so that no two lists of parts look the same."""
    found = hashlib.blake2b(digest_size=_HALF)
    for part in parts:
        found.update(b"%d:" % len(part) + part)
    return found.digest()
