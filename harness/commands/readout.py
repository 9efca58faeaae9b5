"""Draw what regions read of images."""

from __future__ import annotations

from collections.abc import Sequence

from harness.commands.arguments import CommandParser
from harness.measures import N_CLUSTERS
from harness.storage import user_path


def main(argv: Sequence[str] | None = None) -> None:
    """Draw what the regions of a brain read of images, and which voxels read alike."""
    parser = CommandParser(
        "readout",
        "Draw what the regions of a brain read of images, and which voxels read alike.",
        ("readout runs/demo/RUN", "readout runs/demo/RUN --step 0 --roi V1 --roi FFC --image cat.jpg"),
    )
    parser.add_argument("run", type=user_path, metavar="RUN_FOLDER")
    parser.add_argument("--step", type=int, help="of the snapshot (default: the last)")
    parser.add_argument(
        "--roi", action="append", default=[], help="only this region, and layer by layer; may be repeated"
    )
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        type=user_path,
        help="file; may be repeated (default: stimuli)",
    )
    parser.add_argument(
        "--clusters", type=int, default=N_CLUSTERS, help=f"of voxels that read alike (default: {N_CLUSTERS})"
    )
    parser.add_argument("--subject", help="label of one of several, such as subj01 (default: the first)")
    arguments = parser.parse(argv)
    from harness.reporting import write_readout

    for path in write_readout(
        arguments.run,
        arguments.step,
        arguments.roi,
        arguments.image,
        arguments.clusters,
        arguments.subject,
    ):
        print(path)
