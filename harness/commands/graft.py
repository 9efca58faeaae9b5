"""Put pretrained weights back, layer by layer: where does a fine-tuned network forget?"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import nullcontext

from harness.commands.arguments import CommandParser
from harness.storage import InputError, user_path


def main(argv: Sequence[str] | None = None) -> None:
    """Graft the runs in the given folders."""
    parser = CommandParser(
        "graft",
        "Put pretrained weights back into finished runs, layer by layer and one after the other: what the\n"
        "network retains again, what it loses on the task, and whether the map of rewiring foretold it.",
        ("graft runs/demo/*", "graft runs/demo/RUN --orders 20"),
    )
    parser.add_argument("folders", nargs="+", type=user_path, metavar="RUN_FOLDER")
    parser.add_argument(
        "--orders", type=int, default=5, metavar="N", help="random orders, 0 or more (default: 5)"
    )
    arguments = parser.parse(argv)
    if arguments.orders < 0:
        raise InputError(f"--orders: found {arguments.orders}, expected 0 or more")
    # after the arguments are checked: torch takes seconds to import
    from harness.finetuning import build_accelerator
    from harness.reporting import format_grafts
    from harness.runs import (
        check_inputs,
        describe_run,
        graft_folder,
        hold_run,
        load_inputs,
        read_run_config,
    )
    from harness.tracking import measure_grafts, read_summary

    for folder in arguments.folders:
        config = read_run_config(folder)
        accelerator = build_accelerator(config.finetune)
        with hold_run(folder) if accelerator.is_main_process else nullcontext():
            inputs = load_inputs(config, folder)
            check_inputs(folder, describe_run(inputs))
            measure_grafts(config, folder, inputs, accelerator, arguments.orders)
        if accelerator.is_main_process:
            summary = read_summary(folder)
            assert summary is not None
            print(f"{folder.name}\n\n{format_grafts(summary)}\n")
            print(f"all numbers: {graft_folder(folder) / 'summary.json'}; rows: graft/…")
            print(f"to draw them: palimpsest report {shlex.quote(str(folder.parent))}\n")
