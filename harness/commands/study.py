"""Run a study, or describe it."""

from __future__ import annotations

import sys

from harness.storage import InputError
from harness.studies import (
    expand_grid,
    run_study,
)


def main() -> None:
    """Run, or with --plan only describe, the study that the command line names."""
    flags = [text for text in sys.argv[1:] if text.startswith("-")]
    overrides = [text for text in sys.argv[1:] if not text.startswith("-")]
    for flag in flags:
        if flag not in ("--plan", "--plan=quick"):
            raise InputError(f"option {flag!r}: accepted are --plan and --plan=quick")
    if flags:
        from harness.studies import print_plan

        print_plan([config for _, config in expand_grid(overrides)], measure="--plan=quick" not in flags)
    elif run_study(overrides):
        raise SystemExit(1)
