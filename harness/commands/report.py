"""Write the reports of studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.commands.arguments import CommandParser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the reports of the studies whose folders the command line names."""
    parser = CommandParser(
        "report",
        "Write the reports of studies, as one HTML page each, and print where they are.",
        ("report runs/demo",),
    )
    parser.add_argument("studies", nargs="+", type=Path, metavar="STUDY_FOLDER")
    studies = parser.parse(argv).studies
    from harness.reporting import write_report

    for study in studies:
        print(write_report(study))
