"""Track the snapshots of runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from harness.commands.arguments import CommandParser
from harness.storage import user_path


def main(argv: Sequence[str] | None = None) -> None:
    """Track the runs in the given folders."""
    parser = CommandParser(
        "track",
        "Track the snapshots of runs that are not tracked yet: probes, fits to the brain, rewiring.\n"
        "palimpsest finetune does this by itself; use track after a change of runs by hand.",
        ("track runs/demo/*",),
    )
    parser.add_argument("folders", nargs="+", type=user_path, metavar="RUN_FOLDER")
    folders = parser.parse(argv).folders
    # after the arguments are checked: torch takes seconds to import
    from harness.finetuning import build_accelerator
    from harness.runs import (
        check_inputs,
        describe_run,
        finish_record,
        hold_run,
        is_finished,
        load_inputs,
        read_run_config,
    )
    from harness.tracking import (
        TrackedRun,
        track,
    )

    for folder in folders:
        config = read_run_config(folder)
        accelerator = build_accelerator(config.finetune)
        with ExitStack() as held:
            if accelerator.is_main_process:
                held.enter_context(hold_run(folder))
            inputs = load_inputs(config, folder)
            check_inputs(folder, describe_run(inputs))
            if accelerator.is_main_process:
                held.enter_context(TrackedRun(config, folder))
            track(config, folder, inputs, accelerator)
            if accelerator.is_main_process and is_finished(folder):
                finish_record(folder)
