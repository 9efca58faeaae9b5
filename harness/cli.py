"""The command `palimpsest`: finds the command asked for, and imports nothing else."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from harness.interface import __version__
from harness.storage import (
    exit_with_one_line,
    unknown_name,
)


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes
    ----------
    name : str
        As on the command line.
    summary : str
        What it does, in one line.
    launched : bool
        Whether it runs in one process per GPU.
    """

    name: str
    summary: str
    launched: bool = False

    @property
    def module(self) -> str:
        """Name of its module in `harness.commands` and of its entry point."""
        return self.name.replace("-", "_")


COMMANDS = {
    "Experiments": (
        Command("map", "map networks as they are to a brain, then write the atlas"),
        Command("study", "run a grid of fine-tuning runs, then write the report"),
        Command("plan", "print what a study would do and cost, without running it"),
        Command("finetune", "fine-tune a backbone, take snapshots and track them", launched=True),
        Command("track", "track the snapshots of runs", launched=True),
        Command("wise-ft", "measure runs between their first and last weights", launched=True),
        Command("graft", "put pretrained weights back, layer by layer, and see what returns", launched=True),
    ),
    "Results": (
        Command("report", "write the report of a study"),
        Command("atlas", "write the atlas of mapped networks"),
        Command("contrast", "compare A with B in pairs of runs"),
        Command("query", "print curves of rewiring, forgetting and other metrics as a table"),
        Command("claim", "test by a preregistered plan whether brain-like networks forget less"),
        Command("readout", "draw what the regions of a brain read of images"),
        Command("export", "write voxelwise maps for other programs, or the network for the Hugging Face hub"),
        Command("forward", "send journals to MLflow"),
    ),
    "Inputs": (
        Command("config", "print a configuration, the options of a group, or all settings"),
        Command("brains", "describe a brain before a study"),
    ),
    "Development": (
        Command("conformance", "compare FactorTopy with recorded numbers"),
        Command("pretrain", "train the mini backbones again", launched=True),
    ),
}
EXAMPLES = """\
Examples:
  palimpsest study study=demo                       three small networks on handwritten digits, in minutes
  palimpsest plan --quick study=methods task=eurosat
  palimpsest finetune backbone=dinov2_s14 task=eurosat method=lora
  palimpsest query rewiring --by backbone,roi

palimpsest COMMAND --help prints a command's options, settings and examples.
Documentation: README.md and docs/ in the repository."""


def dispatch(argv: Sequence[str]) -> None:
    """Run the command that the arguments name."""
    commands = {command.name: command for group in COMMANDS.values() for command in group}
    if not argv or argv[0].startswith("-"):
        parser = _build_parser()
        parser.parse_args(argv)
        parser.print_help()
        return
    name, *arguments = argv
    if name not in commands:
        raise unknown_name("command", name, commands)
    command = commands[name]
    if command.launched and not {"-h", "--help"} & set(arguments):
        from harness.studies import (
            launch,
            launch_options,
        )

        if launch_options() is not None:
            raise SystemExit(launch(command.module, arguments))
    importlib.import_module(f"harness.commands.{command.module}").main(arguments)


def _build_parser() -> argparse.ArgumentParser:
    lines = [
        "Find where a vision network rewires and what it forgets during fine-tuning,",
        "measured against visual cortex.",
    ]
    for title, group in COMMANDS.items():
        lines += ["", f"{title}:", *(f"  {command.name:14}{command.summary}" for command in group)]
    parser = argparse.ArgumentParser(
        prog="palimpsest",
        usage="palimpsest COMMAND [ARGUMENT ...]",
        description="\n".join(lines),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"palimpsest {__version__}")
    return parser


def main() -> None:
    """Run the command line of this process."""
    exit_with_one_line(lambda: dispatch(sys.argv[1:]))


if __name__ == "__main__":
    main()
