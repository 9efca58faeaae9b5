"""Write the reports of studies."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from harness.reporting import write_report


def main(argv: Sequence[str] | None = None) -> None:
    """Write report.html into the folders of studies, from their finished runs, and print its path."""
    parser = argparse.ArgumentParser(prog="palimpsest report", description=main.__doc__)
    parser.add_argument(
        "studies", nargs="+", type=Path, metavar="STUDY_FOLDER", help="folder of a study, such as runs/demo"
    )
    for study in parser.parse_args(argv).studies:
        print(write_report(study))
