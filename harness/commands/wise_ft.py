"""Measure curves of WiSE-FT."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

import pandas as pd

from harness.config import read_config
from harness.finetuning import build_accelerator
from harness.measures import INTERPOLATED
from harness.reporting import (
    ABSENT,
    RunResult,
    choose_interpolated,
    read_run,
)
from harness.runs import (
    hold_run,
    load_inputs,
    wise_ft_folder,
)
from harness.tracking import (
    ALPHAS,
    measure_curve,
)


def format_curve(run: RunResult) -> str:
    """What is learned, forgotten and rewired at every α, as a table."""
    found = {title: run.curve(run.resolve(metric)) for metric, title in choose_interpolated([run]).items()}
    table = pd.DataFrame(found)
    table.index = pd.Index([f"{step / 100:.2f}" for step in table.index], name="α")
    return table.to_string(float_format="{:.3f}".format, na_rep=ABSENT, line_width=120)


def main() -> None:
    """Measure curves over α of the runs whose folders the command line names."""
    parser = argparse.ArgumentParser(prog="python -m harness.wise_ft", description=main.__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN_FOLDER")
    parser.add_argument(
        "--alphas", nargs="+", type=float, default=ALPHAS, help="0 to 1; the ends are always measured"
    )
    arguments = parser.parse_args()
    for folder in arguments.folders:
        config = read_config(folder / "config.yaml")
        accelerator = build_accelerator(config.finetune)
        with hold_run(folder) if accelerator.is_main_process else nullcontext():
            inputs = load_inputs(config, wise_ft_folder(folder))
            measure_curve(config, folder, arguments.alphas, inputs, accelerator)
        if accelerator.is_main_process:
            print(f"{format_curve(read_run(folder))}\n\nrows: {folder / 'results.jsonl'}, {INTERPOLATED}…")
            print(f"drawn by: python -m harness.report {folder.parent}\n")
