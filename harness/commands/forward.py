"""Send journals to MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from harness.commands.arguments import CommandParser
from harness.runs import (
    read_finished_rows,
    read_run_config,
)
from harness.storage import (
    hide_passwords,
    user_path,
)
from harness.tracking import Status


def main(argv: Sequence[str] | None = None) -> None:
    """Send the journals of run folders to MLflow."""
    parser = CommandParser(
        "forward",
        "Send the whole journals of runs to MLflow, for example after the server was out of reach.\n"
        "Values that are there already do not change.",
        ("forward runs/demo/*", "forward --status FAILED runs/demo/RUN"),
    )
    parser.add_argument("folders", nargs="+", type=user_path, metavar="RUN_FOLDER")
    parser.add_argument(
        "--status",
        choices=get_args(Status),
        default="FINISHED",
        help="status of these runs in MLflow (default: FINISHED)",
    )
    arguments = parser.parse(argv)
    from harness.tracking import (
        TrackedRun,
        tracking_uri,
    )

    for folder in arguments.folders:
        config = read_run_config(folder)
        rows = read_finished_rows(folder)
        if not TrackedRun(config, folder).forward_late(arguments.status):
            raise SystemExit(1)
        store = hide_passwords(tracking_uri(folder.resolve().parents[1]))
        print(f"{folder}: {len(rows)} rows sent to {store}")
