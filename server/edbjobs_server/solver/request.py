"""What was asked of the solver, as far as its log is judged and followed by it."""

from __future__ import annotations

from dataclasses import dataclass

from edbjobs.v1 import job_config_pb2


@dataclass(frozen=True, slots=True)
class SolveRequest:
    """What a run is to solve. It was checked when the job was accepted, and is not checked again.

    Attributes
    ----------
    design, setup : str
        Empty: any.
    optimetrics : bool
        The Optimetrics setups of the design are solved: variations, not the nominal design.
    validate_only : bool
        Nothing is to be solved.
    wait_for_license : bool
        The solver waits for a license instead of failing.
    license_wait_limit : float or None
        Longest such wait in seconds; None: no limit.
    """

    design: str = ""
    setup: str = ""
    optimetrics: bool = False
    validate_only: bool = False
    wait_for_license: bool = False
    license_wait_limit: float | None = None

    @classmethod
    def from_message(cls, message: job_config_pb2.JobConfig) -> SolveRequest:
        """Read what was accepted; nothing in it can be wrong any more."""
        limit = message.license_wait_limit
        return cls(
            design=message.design,
            setup=message.setup,
            optimetrics=message.design_mode == job_config_pb2.DESIGN_MODE_OPTIMETRICS,
            validate_only=message.layout_options.validate_only,
            wait_for_license=message.wait_for_license,
            license_wait_limit=limit.seconds + limit.nanos / 1e9 if message.HasField("license_wait_limit") else None,
        )
