"""Write the reports of studies."""

from __future__ import annotations

from collections.abc import Sequence

from harness.commands.arguments import CommandParser
from harness.storage import user_path


def main(argv: Sequence[str] | None = None) -> None:
    """Write report.html into the folders of studies, from their finished runs, and print its path."""
    parser = CommandParser(
        "report",
        "Write report.html into the folders of studies, from their finished runs, and print its path.",
        ("report runs/demo",),
    )
    parser.add_argument(
        "studies",
        nargs="+",
        type=user_path,
        metavar="STUDY_FOLDER",
        help="folder of a study, such as runs/demo",
    )
    studies = parser.parse(argv).studies
    from harness.reporting import (
        compare_runs,
        log_report,
        read_runs,
        write_report,
    )

    for study in studies:
        report = write_report(study)
        print(report)
        log_report(study, report, compare_runs(read_runs(study)))
