"""Write the atlas of mapped networks."""

from __future__ import annotations

from collections.abc import Sequence

from harness.commands.arguments import CommandParser
from harness.storage import user_path


def main(argv: Sequence[str] | None = None) -> None:
    """Write the atlas of finished maps, and print its path."""
    parser = CommandParser(
        "atlas",
        "Write the atlas of networks that palimpsest map has mapped, in one HTML file, and print its path.",
        (
            "atlas runs/default",
            "atlas runs/default/maps/mini_clip-* runs/other --out both.html",
            "atlas runs/default --roi V1 --roi V4",
        ),
    )
    parser.add_argument(
        "folders", nargs="+", type=user_path, metavar="FOLDER", help="of a map, or of a study with maps"
    )
    parser.add_argument(
        "--out", type=user_path, metavar="FILE", help="page to write (default: atlas.html in the first study)"
    )
    parser.add_argument(
        "--roi",
        action="append",
        default=[],
        help="region whose channels are drawn; may be repeated (default: some of each level)",
    )
    found = parser.parse(argv)
    from harness.reporting import write_atlas

    print(write_atlas(found.folders, found.out, found.roi))
