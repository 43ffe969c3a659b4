"""``python -m faults.campaign``: a campaign of any length. Exit code 1 if an invariant does not hold."""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from faults.campaign import rounds
from faults.campaign.round import Report


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(prog="python -m faults.campaign", description=main.__doc__)
    parser.add_argument("--faults", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--per-round", type=int, default=10, help="faults thrown at one state folder (default 10)")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="of the first round")
    options = parser.parse_args()
    total, started_at, seed = Report(), time.monotonic(), options.seed
    while sum(total.faults.values()) < options.faults:
        folder = Path(tempfile.mkdtemp(prefix="edbjobs-campaign-"))
        print(f"round of seed {seed}:", end=" ", flush=True)
        report = rounds.run(folder, seed, options.per_round)
        print(
            dict(report.faults), f"{report.cuts} cuts, {report.acknowledged} jobs", report.breaches or "ok", flush=True
        )
        total.add(report)
        if report.breaches:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)
        seed += 1
    show(total, time.monotonic() - started_at)
    return 1 if total.breaches else 0


def show(total: Report, seconds: float) -> None:
    """Print what the campaign came to."""
    print(f"\n{sum(total.faults.values())} faults in {seconds:.0f} s")
    for name, number in sorted(total.faults.items()):
        print(f"  {number:5d}  {name}")
    print(f"  {total.cuts:5d}  F10 connection cut")
    print(f"{total.submitted} jobs submitted, {total.acknowledged} acknowledged")
    print(f"restart to serving: p50 {statistics.median(total.restarts):.2f} s, longest {max(total.restarts):.2f} s")
    for name, breaches in total.findings.items():
        print(f"  {len(breaches):5d}  {name}")
        for breach in breaches:
            print(f"         {breach}")


if __name__ == "__main__":
    sys.exit(main())
