"""Helpers shared by the benchmarks: description of the machine, and writing results."""

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
    """Describe the machine that the benchmark runs on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "torch": torch.__version__,
    }


class Stolen:
    """Steal time: core time that the host gave to other guests. If it is high, timings are unreliable."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), self._seconds()

    def share(self) -> float | None:
        """Return the share of all cores' time since the start; None if the system does not report it."""
        now, stolen = time.perf_counter(), self._seconds()
        if stolen is None or self._began[1] is None:
            return None
        return (stolen - self._began[1]) / (now - self._began[0]) / (os.cpu_count() or 1)

    @staticmethod
    def _seconds() -> float | None:
        return getattr(psutil.cpu_times(), "steal", None)


def write_figures(figures: dict[str, Any], path: Path) -> None:
    """Write results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
