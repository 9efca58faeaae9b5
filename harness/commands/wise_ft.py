"""Measure a run between its first and last weights: curves of WiSE-FT."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from harness.commands.arguments import CommandParser
from harness.storage import user_path

if TYPE_CHECKING:
    from harness.reporting import RunResult
else:
    # importing reports takes seconds, and tests check annotations when they run
    RunResult = Any


def format_curve(run: RunResult) -> str:
    """Format what is learned, forgotten and rewired at every α as a table."""
    import pandas as pd

    from harness.reporting import (
        ABSENT,
        choose_interpolated,
    )

    found = {title: run.curve(run.resolve(metric)) for metric, title in choose_interpolated([run]).items()}
    table = pd.DataFrame(found)
    table.index = pd.Index([f"{step / 100:.2f}" for step in table.index], name="α")
    return table.to_string(float_format="{:.3f}".format, na_rep=ABSENT, line_width=120)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure curves over α of the runs in the given folders."""
    parser = CommandParser(
        "wise-ft",
        "Interpolate finished runs between their first (α = 0) and last (α = 1) weights, as in WiSE-FT\n"
        "(Wortsman et al. 2022), and track every point like a snapshot.",
        ("wise-ft runs/demo/*", "wise-ft runs/demo/RUN --alphas 0.25 0.5 0.75"),
    )
    parser.add_argument("folders", nargs="+", type=user_path, metavar="RUN_FOLDER")
    parser.add_argument(
        "--alphas",
        nargs="+",
        type=float,
        help="0 to 1 (default: 0 to 1 in steps of 0.1); both ends are always measured",
    )
    arguments = parser.parse(argv)
    # after the arguments are checked: torch takes seconds to import
    from harness.finetuning import build_accelerator
    from harness.measures import INTERPOLATED
    from harness.reporting import read_run
    from harness.runs import (
        check_inputs,
        describe_run,
        hold_run,
        load_inputs,
        read_run_config,
        wise_ft_folder,
    )
    from harness.tracking import (
        ALPHAS,
        measure_curve,
    )

    for folder in arguments.folders:
        config = read_run_config(folder)
        accelerator = build_accelerator(config.finetune)
        with hold_run(folder) if accelerator.is_main_process else nullcontext():
            inputs = load_inputs(config, wise_ft_folder(folder))
            check_inputs(folder, describe_run(inputs))
            measure_curve(config, folder, arguments.alphas or ALPHAS, inputs, accelerator)
        if accelerator.is_main_process:
            print(f"{format_curve(read_run(folder))}\n\nrows: {folder / 'results.jsonl'}, {INTERPOLATED}…")
            print(f"to draw them: palimpsest report {shlex.quote(str(folder.parent))}\n")
