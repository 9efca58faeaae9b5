"""Write voxelwise maps of a run for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.commands.arguments import CommandParser
from harness.exports import FORMATS


def main(argv: Sequence[str] | None = None) -> None:
    """Write every voxelwise map of a snapshot in one format, and print the files."""
    parser = CommandParser(
        "export",
        "Write every voxelwise map of a snapshot (layer, depth, confidence, R², rewiring, verdict and p of\n"
        "the region, and more) for other programs. maps.json beside the files says what each map means.",
        (
            "export runs/demo/RUN --format csv",
            "export runs/demo/RUN --format gifti --step 0 --output maps",
            "export runs/nsd/RUN --format nifti --subject subj02",
            "export runs/nsd/RUN --format pycortex --pycortex-subject S1 --pycortex-transform S1_auto",
        ),
    )
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER")
    parser.add_argument("--format", choices=FORMATS, required=True, help=", ".join(FORMATS), metavar="FORMAT")
    parser.add_argument("--step", type=int, help="of the snapshot (default: the last)")
    parser.add_argument("--subject", help="label of one of several, such as subj01 (default: the first)")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="for the files (default: exports/step-…/FORMAT in the run's folder)",
    )
    parser.add_argument(
        "--pycortex-subject",
        metavar="NAME",
        help="in your pycortex database (default on fsaverage: fsaverage)",
    )
    parser.add_argument(
        "--pycortex-transform", metavar="NAME", help="of that subject, from the volume of the responses"
    )
    arguments = parser.parse(argv)
    # after the arguments are checked: reading brains takes libraries that are slow to import
    from harness.exports import write_export

    for path in write_export(
        arguments.run,
        arguments.format,
        arguments.step,
        arguments.subject,
        arguments.output,
        arguments.pycortex_subject,
        arguments.pycortex_transform,
    ):
        print(path)
