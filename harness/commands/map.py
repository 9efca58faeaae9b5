"""Map networks as they are to a brain: no task, no fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.commands.arguments import OverrideParser
from harness.config import (
    MAPPED,
    Config,
)
from harness.storage import (
    InputError,
)

READ = (*MAPPED, "runs_dir", "study", "probes.batch_size")
"""Sections and settings that the command reads; those of `MAPPED` determine the result."""


def run(config: Config) -> Path:
    """Map one network to every subject of the brain, unless that is done; return the folder."""
    # after the arguments are checked: torch takes seconds to import
    import torch

    from harness.backbones import load_backbone
    from harness.runs import (
        Brains,
        begin_record,
        describe_map,
        finish_record,
        hold_run,
        is_finished,
        list_subjects,
        map_folder,
    )
    from harness.tracking import map_network

    folder = map_folder(config)
    with hold_run(folder):
        backbone, brains = load_backbone(config.backbone), Brains(list_subjects(config.brain, folder))
        begin_record(config, folder, describe_map(backbone, brains))
        if is_finished(folder):
            print(f"{folder}: already there", flush=True)
            return folder
        map_network(
            config, folder, backbone, brains, torch.device("cuda" if torch.cuda.is_available() else "cpu")
        )
        finish_record(folder, [0])
    print(folder, flush=True)
    return folder


def expand(overrides: Sequence[str]) -> list[Config]:
    """Configurations of the networks to map, each once: ``backbone=A,B`` names several, so does a grid.

    Raises
    ------
    InputError
        For a setting that maps do not have, or what `expand_grid` finds wrong.
    """
    from harness.runs import map_folder
    from harness.studies import expand_grid

    backbones: list[str] = []
    others: list[str] = []
    for text in overrides:
        name, _, value = text.partition("=")
        if not any(name == known or name.startswith(f"{known}.") for known in READ):
            raise InputError(
                f"{name}: palimpsest map does not read it, expected settings of {', '.join(READ)}"
            )
        if name == "backbone" and value:
            backbones += [one.strip() for one in value.removeprefix("[").removesuffix("]").split(",")]
        else:
            others.append(text)
    chosen = [[f"backbone={backbone}"] for backbone in dict.fromkeys(backbones)] or [[]]
    found = {
        map_folder(config): config for one in chosen for _, config in expand_grid([*one, *others])
    }  # a grid may also vary what maps do not read
    return list(found.values())


def main(argv: Sequence[str] | None = None) -> None:
    """Map the networks that overrides name."""
    parser = OverrideParser(
        "map",
        "Map one or several networks as they are to a brain, without task and fine-tuning, and write the "
        "atlas. backbone=A,B maps several.\n"
        "The same command goes on where it stopped, and skips what is there.",
        (
            "map backbone=mini_clip",
            "map backbone=clip_b16 brain=nsd brain.root=/data/nsd brain.subjects=[1,2]",
            "map backbone=mae_b16 mapping.steps=1000 mapping.floor_refits=2 study.name=frozen",
        ),
        ("seed", "runs_dir", "study.name", "brain.rois", "mapping.steps", "mapping.floor_refits"),
    )
    configs = expand(parser.parse(argv).overrides)
    from harness.finetuning import use_given_cores

    use_given_cores()
    folders = [run(config) for config in configs]
    from harness.reporting import write_atlas

    print(f"atlas: {write_atlas(folders)}")
