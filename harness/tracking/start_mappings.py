"""The brain's mappings of step 0, fitted before training for methods that anchor at them.

They are the work items of step 0 that tracking would do later: it finds them done, and runs share them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from PIL import Image

from harness.config import Config
from harness.finetuning import Anchor, StartMappings
from harness.mappings import load_mapping
from harness.runs import Inputs
from harness.storage import hash_pixels
from harness.tracking.tracker import fit_start
from harness.tracking.work_items import WorkItem


def prepare_start(config: Config, run: Path, inputs: Inputs, accelerator: Accelerator) -> StartMappings:
    """Fit the mappings of step 0 that are missing, and read those of all subjects.

    Parameters
    ----------
    config : Config
    run : Path
        The run's folder.
    inputs : Inputs
    accelerator : Accelerator
        Its processes share the subjects.
    """
    fit_start(config, run, inputs, accelerator)
    anchors, seen = [], set[str]()
    for subject in inputs.brains.subjects:
        brain = inputs.brains.load(subject)
        known = np.ones(brain.n_voxels) if brain.noise_ceiling is None else brain.noise_ceiling
        anchors.append(
            Anchor(
                load_mapping(WorkItem(subject, 0).mapping, with_learned=True),
                np.clip(np.asarray(known, dtype=np.float32), 0, 1),
                config.mapping.token_size,
            )
        )
        seen |= _hash_all(brain.stimuli[place] for place in range(len(brain.stimulus_ids)))
    for task in (*inputs.tasks, *inputs.probes):
        seen |= _hash_all(item["image"] for item in task.test)
    return StartMappings(tuple(anchors), frozenset(seen))


def _hash_all(images: Iterable[Image.Image]) -> set[str]:
    return {hash_pixels(image) for image in images}
