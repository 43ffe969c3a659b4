"""A submit in which every field that is served is set, to values that are hard to carry."""

from __future__ import annotations

from typing import Any

# Two, three and four bytes in UTF-8, combining, right to left, quotes, what JSON and shells escape.
UNICODE = "Größe ≤ 3 µm · 基板 · 🛰 · e\u0301 · שלום · \"'\\ $HOME %20"
BEYOND_DOUBLE = "9007199254740993"  # 2**53 + 1: no double has this value
LARGEST = "9223372036854775807"


def maximal_config(project: str) -> dict[str, Any]:
    """Make a JobConfig with every field that is served, in proto3's JSON."""
    return {
        "projectPath": project,
        "design": "Design_1",
        "setup": "Setup1",
        "designMode": "DESIGN_MODE_NOMINAL",
        "aedtVersion": "2025.2",
        "aedtPath": "$solver",
        "product": "HFSS 3D Layout Design",
        "scheduler": "local",
        "schedulerOptions": {
            "partition": "default",
            "nodes": 2,
            "tasksPerNode": 3,
            "coresPerNode": 4,
            "memoryBytesPerNode": BEYOND_DOUBLE,
            "gpusPerNode": 0,
            "gpuType": "a100",
            "exclusive": False,
            "constraint": "avx512",
            "includeNodes": ["n[1-4]", "n7"],
            "excludeNodes": ["n9"],
            "account": "charge",
            "qos": "normal",
            "reservation": "night",
            "priority": "SCHEDULER_PRIORITY_HIGHEST",
            "licenses": {"hfss": 1, "hpc@server": 2},
            "wckey": "key",
            "email": "somebody@example.com",
            "comment": "for the night",
            "runAsAdministrator": False,
            "extra": {"comment": "none"},
        },
        "cores": 3,
        "memoryBytes": "9007199254740991",
        "licenses": {"hfss_solve": 1, "electronics_desktop": 2147483647, "none": 0},
        "machines": [
            {"hostname": "localhost", "cores": 2, "maxCores": 64, "memoryPercent": 75, "tasks": -1, "gpus": 0},
            {"hostname": "node-02.example", "cores": 1, "maxCores": 8, "memoryPercent": 90, "tasks": 1},
        ],
        "timeLimit": "86400.000000001s",
        "cancelGracePeriod": "0s",
        "distributed": False,
        "autoSettings": True,
        "nonGraphical": True,
        "monitor": False,
        "layoutOptions": {
            "createStartingMesh": False,
            "defaultProcessPriority": "Normal",
            "enableGpu": False,
            "mpiVendor": "Intel",
            "mpiVersion": "2021",
            "remoteSpawnCommand": "SSH",
            "solveAdaptiveOnly": True,
            "validateOnly": False,
            "tempDirectory": "/tmp",
        },
        "batchOptions": {"HPCLicenseType": "pool"},
        "environment": {"ANS_EDBJOBS_DEMO": "seconds=0.1", "ANS_TEXT": UNICODE},
        "waitForLicense": True,
        "licenseWaitLimit": "7200s",
        "schedulerWaitLimit": "7200s",
        "notBeforeTime": "2999-12-31T23:59:59.123456789Z",
        "retry": {
            "maxAttempts": 100,
            "reasons": ["END_REASON_LICENSE", "END_REASON_PREEMPTED"],
            "initialDelay": "0.250s",
            "maxDelay": "3600s",
        },
        "existingResults": "EXISTING_RESULTS_CLEAR",
        "batch": "batch-1",
        "labels": {"unicode": UNICODE, "empty": "", "long": "x" * 255},
    }


def maximal_submit(project: str) -> dict[str, Any]:
    """Make a SubmitJobRequest with every field that is served."""
    return {
        "requestId": "r" * 64,
        "jobId": "m" * 63,
        "config": maximal_config(project),
        "priority": -1_000_000,
        "user": "Jürgen 李",
        "hold": True,
    }
