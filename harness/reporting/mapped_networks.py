"""Finished maps of networks, read from their folders, and their scores by region."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from harness.brains import Brain
from harness.config import Config
from harness.mappings import (
    Mapping,
    load_mapping,
)
from harness.measures import (
    counted_places,
    expected_depth,
    predicted_voxels,
)
from harness.plot import choose_colours
from harness.runs import (
    Subject,
    is_finished,
    list_subjects,
    maps_folder,
    read_finished_rows,
    read_run_config,
    step_0_folders,
)
from harness.storage import InputError


@dataclass(frozen=True)
class MappedNetwork:
    """A network that was mapped as it is.

    Attributes
    ----------
    label, colour : str
        In figures and tables.
    config : Config
    folder : Path
    rows : dict of str to float
        Content of ``results.jsonl``.
    """

    label: str
    colour: str
    config: Config
    folder: Path
    rows: dict[str, float]

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Its subjects."""
        return list_subjects(self.config.brain, self.folder)


@dataclass(frozen=True)
class SubjectFits:
    """The fits of one network to one subject.

    Attributes
    ----------
    mapping : Mapping
        That the rows are of.
    spread : dict of place to list of float
        Mean R² of a place in every fit of the unchanged network: the mapping and its refits.
    counted : bool array [n_voxels]
        Predicted voxels.
    depth : dict of region to float
        Mean expected depth of its predicted voxels, 0 to 1.
    """

    mapping: Mapping
    spread: dict[str, list[float]]
    counted: Bool[np.ndarray, " n_voxels"]
    depth: dict[str, float]


def find_maps(folder: Path) -> list[Path]:
    """Folders of finished maps: all of a study, or the one given.

    Raises
    ------
    InputError
        If there is none.
    """
    folder = Path(folder)
    here = [folder] if is_finished(folder) and not (folder / "snapshots").exists() else []
    found = here or sorted(path.parent for path in maps_folder(folder).glob("*/finished.json"))
    if not found:
        raise InputError(
            f"{folder}: found no finished map, expected the folder of palimpsest map or of its study"
        )
    return found


def read_maps(folders: Sequence[Path]) -> list[MappedNetwork]:
    """Read maps; those of a backbone that occurs twice on one brain are labelled with what tells them apart.

    Raises
    ------
    InputError
        If a file is missing or broken, or the settings of a map were edited.
    """
    configs = {folder: read_run_config(folder) for folder in folders}
    pretrained = {config.backbone.name: not config.backbone.untrained for config in configs.values()}
    colours = choose_colours(pretrained)
    often = Counter((config.backbone.name, config.brain) for config in configs.values())
    found = []
    for folder, config in configs.items():
        rows = read_finished_rows(folder)
        name = config.backbone.name
        alone = often[name, config.brain] == 1
        label = name if alone else f"{name}, {config.mapping.family}, seed {config.seed}, {folder.name[-4:]}"
        found.append(
            MappedNetwork(label, colours[name], config, folder, {row["name"]: row["value"] for row in rows})
        )
    return found


def read_fits(subject: Subject, brain: Brain) -> SubjectFits:
    """Read the fits of one subject and summarise what several of them are needed for."""
    mapping, *refits = map(load_mapping, step_0_folders(subject.folder))
    r2 = [fit.r2 for fit in (mapping, *refits)]
    places = {"all": np.arange(brain.n_voxels)} | {roi.name: roi.voxels for roi in brain.rois}
    counted = predicted_voxels(r2, mapping.r2)
    depth = expected_depth(mapping.layer)
    return SubjectFits(
        mapping,
        {
            place: [float(fit[voxels].mean(dtype=np.float64)) for fit in r2]
            for place, voxels in places.items()
        },
        counted,
        {
            place: float(depth[voxels].mean(dtype=np.float64))
            for place, voxels in counted_places(brain.rois, counted).items()
            if place != "all"
        },
    )
