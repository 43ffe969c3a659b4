"""A submit in which every field is set, to values that are hard to carry."""

from __future__ import annotations

from typing import Any

# Two, three and four bytes in UTF-8, combining, right to left, quotes, what JSON and shells escape.
UNICODE = "Größe ≤ 3 µm · 基板 · 🛰 · e\u0301 · שלום · \"'\\ $HOME %20"
BEYOND_DOUBLE = "9007199254740993"  # 2**53 + 1: no double has this value
LARGEST = "9223372036854775807"


def maximal_config(project: str) -> dict[str, Any]:
    """Make a JobConfig with every field, in proto3's JSON."""
    return {
        "projectPath": project,
        "solver": "Hfss3DLayout",
        "ansysEdtPath": "$solver",
        "aedtVersion": "2025.2",
        "designName": "Design_1",
        "designMode": "Nominal",
        "setupName": "Setup1",
        "machineNodes": [
            {"hostname": "localhost", "cores": 2, "maxCores": 64, "utilization": 75, "tasks": -1, "gpus": 0},
            {"hostname": "node-02.example", "cores": 1, "maxCores": 8, "utilization": 90, "tasks": 1},
        ],
        "distributed": False,
        "auto": True,
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
        "schedulerType": "SCHEDULER_TYPE_LOCAL",
        "schedulerOptions": {
            "queue": "default",
            "time": "24:00:00",
            "nodes": 2,
            "tasksPerNode": 3,
            "coresPerNode": 4,
            "memory": "64GB",
            "account": "charge",
            "reservation": "night",
            "qos": "normal",
            "constraints": "avx512",
            "exclusive": True,
            "gpus": 1,
            "gpuType": "a100",
            "priority": "Normal",
            "emailNotification": "somebody@example.com",
            "runAsAdministrator": True,
            "licenses": ["hfss:1"],
            "nodelist": "n[1-4]",
            "exclude": "n9",
            "begin": "now+1hour",
            "wckey": "key",
            "extra": {"comment": "none"},
            "comment": "for the night",
        },
        "cores": 3,
        "memoryMib": "1099511627776",
        "licenses": {"hfss_solve": 1, "electronics_desktop": 2147483647},
        "environment": {"ANS_EDBJOBS_DEMO": "seconds=0.1", "ANS_TEXT": UNICODE},
        "wallClockLimit": "86400.000000001s",
        "cancelGrace": "3600s",
        "retry": {
            "maxAttempts": 100,
            "reasons": ["END_REASON_LICENSE", "END_REASON_PREEMPTED"],
            "initialBackoff": "0.250s",
            "maxBackoff": "3600s",
        },
        "waitForLicense": True,
        "licenseWaitLimit": "7200s",
        "schedulerWaitLimit": "7200s",
        "existingResults": "EXISTING_RESULTS_CLEAR",
        "notBefore": "2999-12-31T23:59:59.123456789Z",
        "labels": {"unicode": UNICODE, "empty": "", "long": "x" * 255},
        "batch": "batch-1",
        "batchOptions": {"HPCLicenseType": "pool"},
    }


def maximal_submit(project: str) -> dict[str, Any]:
    """Make a SubmitJobRequest with every field."""
    return {
        "requestId": "r" * 64,
        "jobId": "m" * 63,
        "config": maximal_config(project),
        "priority": -1_000_000,
        "user": "Jürgen 李",
        "hold": True,
    }
