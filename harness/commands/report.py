"""Write the reports of studies."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.reporting import write_report


def main() -> None:
    """Write the reports of the studies whose folders the command line names."""
    parser = argparse.ArgumentParser(prog="python -m harness.report", description=main.__doc__)
    parser.add_argument("studies", nargs="+", type=Path, metavar="STUDY_FOLDER")
    for study in parser.parse_args().studies:
        print(write_report(study))
