"""Where a file of weights lies."""

from __future__ import annotations

from pathlib import Path

from harness.config import PACKAGE_FOLDER
from harness.storage import user_path


def locate_checkpoint(checkpoint: str) -> Path:
    """Look up a file from the current folder, then from the folder that holds the package `harness`."""
    path = user_path(checkpoint)
    within = PACKAGE_FOLDER.parent / path
    return within if not path.exists() and within.exists() else path
