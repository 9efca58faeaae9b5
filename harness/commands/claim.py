"""Test whether brain-like networks forget less, by a preregistered plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.commands.arguments import CommandParser
from harness.storage import user_path


def main(argv: Sequence[str] | None = None) -> None:
    """Make the test of a plan, print it, and write claim.html, claim.json and claim.png."""
    parser = CommandParser(
        "claim",
        "Test whether brain-like networks forget less: H at step 0 against forgetting at matched learning,\n"
        "over the backbones of a plan. Prints the verdict and writes claim.html, claim.json and claim.png\n"
        "into the study's folder. Runs take their plan from study.plan=PLAN.yaml.",
        (
            "claim plan.yaml --check            # before any run: hash, runs, and what can be seen",
            "study study=mine study.plan=plan.yaml",
            "claim plan.yaml",
        ),
    )
    parser.add_argument("plan", type=user_path, metavar="PLAN.yaml", help="the plan (docs/claim.md)")
    parser.add_argument(
        "--check", action="store_true", help="print the plan's hash, its runs and its power; read no run"
    )
    parser.add_argument(
        "--runs-dir", type=user_path, default=Path("runs"), help="folder of all runs (default: runs)"
    )
    arguments = parser.parse(argv)
    # after the arguments are checked: reports take a second to import
    from harness.config import read_plan
    from harness.reporting import (
        describe_plan,
        write_claim,
    )

    plan = read_plan(arguments.plan)
    if arguments.check:
        print(describe_plan(plan))
        return
    outcome = write_claim(plan, arguments.runs_dir / plan.study)
    print(f"{outcome.text}\n\npage: {outcome.page}")
