"""What benchmarks share: the machine they ran on, and how their figures are written."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import psutil
import torch


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "torch": torch.__version__,
    }


class Stolen:
    """How much of this machine its host has given to others: where that is much, timings say little."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), self._seconds()

    def share(self) -> float | None:
        """Of the time of all cores since the beginning; None where no host says so."""
        now, stolen = time.perf_counter(), self._seconds()
        if stolen is None or self._began[1] is None:
            return None
        return (stolen - self._began[1]) / (now - self._began[0]) / (os.cpu_count() or 1)

    @staticmethod
    def _seconds() -> float | None:
        return getattr(psutil.cpu_times(), "steal", None)


def write_figures(figures: dict[str, Any], path: Path) -> None:
    """Write figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
