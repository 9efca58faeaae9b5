"""The mapping of a network as it is: work items of step 0 alone, without task, probes and snapshots."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from harness.backbones import Backbone
from harness.config import Config
from harness.runs import (
    Brains,
    Journal,
    reference_file,
    start_folder,
)
from harness.tracking.fitter import (
    Fitter,
    prepare_split,
)
from harness.tracking.results import (
    join_subjects,
    measure_subject,
)
from harness.tracking.shared_start import SharedStart
from harness.tracking.work_items import plan_work


def map_network(
    config: Config,
    folder: Path,
    backbone: Backbone,
    brains: Brains,
    device: torch.device,
    quiet: bool = False,
) -> None:
    """Fit a network's mapping to every subject, with its refits, and write the rows of step 0.

    Mappings that exist are kept, so a killed call goes on. They are those of a run's step 0 with the same
    settings, and shared with it, except for a family that fits all snapshots together.

    Parameters
    ----------
    config : Config
    folder : Path
        Laid out like a run's folder; `brains` keep their files in it.
    backbone : Backbone
    brains : Brains
    device : torch.device
    quiet : bool
        Whether to show no progress bars.
    """
    fitter = Fitter(config, folder, brains, device, quiet)
    fitter.open(backbone)
    shared = SharedStart(config, backbone, brains, device)
    rows: dict[str, dict[str, float]] = {}
    for subject in brains.subjects:
        prepare_split(config, subject, brains)
        of = f"{config.backbone.name}, {subject.label or config.brain.name}"
        missing = [item for item in plan_work(config, [subject], [0]) if not item.mapping.exists()]
        if missing and fitter.lacks_start(subject):
            start = fitter.start_item(subject)
            make = partial(fitter.make_start, start, of)
            shared.make_start(start, start_folder(subject.folder), make)
        for place, item in enumerate(missing, 1):
            shared.make_mapping(item, partial(fitter.fit, item, f"{of} {place}/{len(missing)}"))
        if not reference_file(subject.folder, 0).exists():
            fitter.make_reference(plan_work(config, [subject], [0])[0], of)
        rows[subject.label or "all"] = measure_subject(config, subject, brains, [0])[0]
    with Journal(folder / "results.jsonl") as journal:
        journal.log(0, join_subjects(rows))
