"""Send journals to MLflow."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from harness.config import read_config
from harness.runs import read_rows
from harness.storage import read_json
from harness.tracking import (
    Status,
    TrackedRun,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
else:
    # importing mlflow takes a second, and tests check annotations when they run
    MlflowClient = Any


def main() -> None:
    """Send the journals of run folders to MLflow, whole; what is there already does not change."""
    parser = argparse.ArgumentParser(prog="python -m harness.tracking", description=main.__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN_FOLDER")
    parser.add_argument(
        "--status", choices=get_args(Status), default="FINISHED", help="of these runs (default: FINISHED)"
    )
    arguments = parser.parse_args()
    for folder in arguments.folders:
        config = read_config(folder / "config.yaml")
        rows, _ = read_rows(folder / "results.jsonl")
        manifest = read_json(folder / "manifest.json") if (folder / "manifest.json").exists() else {}
        tags = {key: str(manifest[key]) for key in ("code_version",) if key in manifest}
        if not TrackedRun(config, folder, tags).forward(arguments.status):
            raise SystemExit(1)
        print(f"{folder}: {len(rows)} rows sent to {tracking_uri(folder.resolve().parents[1])}")
