"""Track the snapshots of runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from harness.commands.arguments import CommandParser


def main(argv: Sequence[str] | None = None) -> None:
    """Track the runs in the given folders."""
    parser = CommandParser(
        "track",
        "Track the snapshots of runs that are not tracked yet: probes, fits to the brain, rewiring.\n"
        "palimpsest finetune does this by itself; use track after a change of runs by hand.",
        ("track runs/demo/*",),
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN_FOLDER")
    folders = parser.parse(argv).folders
    # after the arguments are checked: torch takes seconds to import
    from harness.config import read_config
    from harness.finetuning import build_accelerator
    from harness.runs import load_inputs
    from harness.tracking import (
        TrackedRun,
        track,
    )

    for folder in folders:
        config = read_config(folder / "config.yaml")
        accelerator = build_accelerator(config.finetune)
        with TrackedRun(config, folder) if accelerator.is_main_process else nullcontext():
            track(config, folder, load_inputs(config, folder), accelerator)
