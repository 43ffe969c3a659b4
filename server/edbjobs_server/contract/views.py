"""How much of a job is sent."""

from __future__ import annotations

from edbjobs.v1 import job_pb2

BASIC, FULL = job_pb2.JOB_VIEW_BASIC, job_pb2.JOB_VIEW_FULL
