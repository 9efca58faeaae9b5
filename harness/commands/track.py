"""Track the snapshots of runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.config import read_config
from harness.finetuning import build_accelerator
from harness.runs import load_inputs
from harness.tracking import track


def main() -> None:
    """Track the runs whose folders the command line names."""
    parser = argparse.ArgumentParser(prog="python -m harness.track", description=main.__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN_FOLDER")
    for folder in parser.parse_args().folders:
        config = read_config(folder / "config.yaml")
        accelerator = build_accelerator(config.finetune)
        track(config, folder, load_inputs(config, folder), accelerator)
