"""Run a study, or print its plan."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

from harness.commands.arguments import OverrideParser

EXAMPLES = (
    "study study=demo",
    "study study=demo seed=1",
    "study study=methods task=eurosat study.leave_out=[lwf]",
    "study study=methods task=eurosat study.launcher=slurm study.slurm.partition=gpu",
    "study study=demo --plan           # what it would do and cost",
    "study study=demo --plan=quick     # the same without measuring time",
)
SETTINGS = (
    "study.name",
    "study.grid",
    "study.leave_out",
    "study.launcher",
    "seed",
    "runs_dir",
    "task.n_train",
    "finetune.epochs",
    "finetune.lr",
    "probes.tasks",
    "mapping.steps",
)
Plan = Literal["full", "quick"]


def show_plan(overrides: list[str], plan: Plan) -> None:
    """Print what a study would do and cost."""
    from harness.studies import (
        expand_grid,
        print_plan,
    )

    print_plan([config for _, config in expand_grid(overrides)], measure=plan == "full")


def main(argv: Sequence[str] | None = None) -> None:
    """Run, or with --plan only describe, the study that overrides resolve to."""
    parser = OverrideParser(
        "study",
        "Run every combination of a study's grid, then write the report and print the comparison.\n"
        "Finished runs are skipped; the same command resumes an interrupted study.",
        EXAMPLES,
        SETTINGS,
    )
    parser.add_argument(
        "--plan",
        choices=("full", "quick"),
        metavar="{,=quick}",
        help="print runs, sizes, downloads and estimated time instead; =quick measures no time",
    )
    # argparse has no option whose value only follows a "="
    arguments = [
        "--plan=full" if text == "--plan" else text for text in (sys.argv[1:] if argv is None else argv)
    ]
    found = parser.parse(arguments)
    if found.plan is not None:
        show_plan(found.overrides, found.plan)
        return
    from harness.config import load_config
    from harness.studies import prepare_server

    # on a cluster this process only waits
    if load_config(found.overrides).study.launcher == "local":
        prepare_server()
    from harness.studies import run_study

    if run_study(found.overrides):
        raise SystemExit(1)
