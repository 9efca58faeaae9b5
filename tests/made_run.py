"""The folder of a tracked run over any brain: configuration, split, mappings, refits and verdicts."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from pathlib import Path

import numpy as np
from made_study import make_mapping

from harness.brains.load import load_brain
from harness.config.compose import (
    load_config,
    to_yaml,
)
from harness.mappings.mapping import save_mapping
from harness.mappings.splits import (
    Split,
    save_split,
)
from harness.runs.journal import Journal
from harness.runs.layout import (
    mapping_folder,
    snapshot_folder,
    split_file,
)
from harness.runs.subjects import list_subjects

STEPS = (0, 4)
N_REFITS = 2


def write_tracked(run: Path, overrides: list[str], rows: MappingType[str, float] | None = None) -> Path:
    """Write snapshots 0 and 4, two refits of step 0 and, at step 4, the rows of results."""
    config = load_config(["backbone=mini_random", "task=shapes", *overrides])
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    for step in STEPS:
        snapshot_folder(run, step).mkdir(parents=True)
    for number, subject in enumerate(list_subjects(config.brain, run)):
        brain = load_brain(subject.brain)
        picture = np.unique(brain.stimulus_ids, return_inverse=True)[1]
        held_out = picture < picture.max() // 2
        save_split(Split(np.flatnonzero(~held_out), np.flatnonzero(held_out)), split_file(subject.folder))
        for refit in range(N_REFITS + 1):
            mapping = make_mapping(brain, 0.6, 0.0, seed=10 * number + refit)
            save_mapping(mapping, mapping_folder(subject.folder, 0, refit))
        save_mapping(make_mapping(brain, 0.6, 0.2, seed=10 * number + 5), mapping_folder(subject.folder, 4))
    with Journal(run / "results.jsonl") as journal:
        journal.log(4, {"brain/all/r2": 0.3, **(rows or {})})
    return run
