"""Print the plan of a study."""

from __future__ import annotations

from collections.abc import Sequence

from harness.commands.arguments import OverrideParser
from harness.commands.study import (
    SETTINGS,
    show_plan,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Print what the study that overrides resolve to would do and cost."""
    parser = OverrideParser(
        "plan",
        "Print a study's runs, their sizes on disk and in memory, what they need from outside, and the time\n"
        "they are estimated to take on this machine. Nothing is downloaded or trained.",
        ("plan study=demo", "plan --quick study=methods task=eurosat"),
        SETTINGS,
    )
    parser.add_argument("--quick", action="store_true", help="measure no time")
    found = parser.parse(argv)
    show_plan(found.overrides, "quick" if found.quick else "full")
