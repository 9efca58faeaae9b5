"""Compare FactorTopy with recorded numbers of the published implementation."""

from __future__ import annotations

from collections.abc import Sequence

from harness.commands.arguments import CommandParser
from harness.storage import (
    InputError,
    user_path,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Compare with the given file; exit status 1 if a number differs."""
    parser = CommandParser(
        "conformance",
        "Compare FactorTopy with recorded numbers of the published implementation.\n"
        "Prints every difference; the exit status is 1 if one is too large.",
        ("conformance reference.npz",),
    )
    parser.add_argument("file", type=user_path, metavar="FILE.npz")
    path = parser.parse(argv).file
    from harness.mappings import (
        compare_with_published,
        format_differences,
        read_reference,
    )

    try:
        differences = compare_with_published(read_reference(path))
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    print(format_differences(differences))
    if not all(difference.conforms for difference in differences):
        raise SystemExit(1)
