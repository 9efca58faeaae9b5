"""Write voxelwise maps of a run for other programs, or the fine-tuned network for the Hugging Face hub."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from harness.commands.arguments import CommandParser
from harness.exports import FORMATS, MODEL_FORMATS
from harness.storage import (
    InputError,
    user_path,
)

OF_MAPS = ("subject", "pycortex_subject", "pycortex_transform")
OF_MODELS = ("task", "push", "private")


def main(argv: Sequence[str] | None = None) -> None:
    """Write a snapshot in one format, and print the files; with ``--push``, the address on the hub."""
    parser = CommandParser(
        "export",
        "Write every voxelwise map of a snapshot (layer, depth, confidence, R², rewiring, verdict and p of\n"
        "the region, and more) for other programs. maps.json beside the files says what each map means.\n"
        "Or write the network: --format huggingface is a folder that timm or open_clip loads, with a model\n"
        "card; --format peft is the adapter of a LoRA run. --push sends the folder to the hub.",
        (
            "export runs/demo/RUN --format csv",
            "export runs/demo/RUN --format gifti --step 0 --output maps",
            "export runs/nsd/RUN --format nifti --subject subj02",
            "export runs/nsd/RUN --format pycortex --pycortex-subject S1 --pycortex-transform S1_auto",
            "export runs/demo/RUN --format huggingface --output model",
            "export runs/demo/RUN --format huggingface --push USER/NAME --private",
        ),
    )
    forms = (*FORMATS, *MODEL_FORMATS)
    parser.add_argument("run", type=user_path, metavar="RUN_FOLDER")
    parser.add_argument("--format", choices=forms, required=True, help=", ".join(forms), metavar="FORMAT")
    parser.add_argument("--step", type=int, help="of the snapshot (default: the last)")
    parser.add_argument(
        "--output",
        type=user_path,
        metavar="FOLDER",
        help="for the files (default: exports/step-…/FORMAT in the run's folder)",
    )
    maps = parser.add_argument_group("maps")
    maps.add_argument("--subject", help="label of one of several, such as subj01 (default: the first)")
    maps.add_argument(
        "--pycortex-subject",
        metavar="NAME",
        help="in your pycortex database (default on fsaverage: fsaverage)",
    )
    maps.add_argument(
        "--pycortex-transform", metavar="NAME", help="of that subject, from the volume of the responses"
    )
    models = parser.add_argument_group("huggingface, peft")
    models.add_argument(
        "--task", help="of a sequence, whose head is exported (default: the last one trained at this step)"
    )
    models.add_argument("--push", metavar="USER/NAME", help="repository on the hub to send the folder to")
    models.add_argument(
        "--private", action="store_true", help="make that repository private, if it is a new one"
    )
    arguments = parser.parse(argv)
    of_model = arguments.format in MODEL_FORMATS
    _check_options(arguments, OF_MAPS if of_model else OF_MODELS, FORMATS if of_model else MODEL_FORMATS)
    if of_model:
        _write_model(arguments)
        return
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


def _check_options(arguments: argparse.Namespace, others: Sequence[str], forms: Sequence[str]) -> None:
    """Refuse options of the other formats."""
    for name in others:
        if getattr(arguments, name):
            option = f"--{name.replace('_', '-')}"
            # pycortex's names belong to one of the formats of maps
            expected = "pycortex" if name.startswith("pycortex") else " or ".join(forms)
            raise InputError(f"{option}: found --format {arguments.format}, expected {expected}")


def _write_model(arguments: argparse.Namespace) -> None:
    from harness.exports import check_push, push_model, write_model

    if arguments.private and arguments.push is None:
        raise InputError("--private: found no --push, expected a repository to send the folder to")
    if arguments.push is not None:
        check_push(arguments.push)
    files = write_model(
        arguments.run,
        arguments.format,
        arguments.step,
        arguments.task,
        arguments.output,
        arguments.push,
    )
    for path in files:
        print(path)
    if arguments.push is not None:
        print(push_model(files[0].parent, arguments.push, arguments.private))
