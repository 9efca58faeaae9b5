"""Hold FactorTopy to recorded numbers."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.mappings import (
    compare_with_published,
    format_differences,
    read_reference,
)
from harness.storage import InputError


def main() -> None:
    """Compare with the file named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.conformance",
        description="Hold FactorTopy to recorded numbers of the published implementation.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.npz")
    path = parser.parse_args().file
    try:
        differences = compare_with_published(read_reference(path))
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    print(format_differences(differences))
    if not all(difference.conforms for difference in differences):
        raise SystemExit(1)
