"""What runs share of step 0: its fits, refits, evidence and probes, made once per backbone, brain and seed.

Fine-tuning methods, learning rates and lengths do not change the pretrained network, so the runs of a study
would do the same work at step 0 again and again. Results are kept in the cache folder by the hash of all that
they are made from, the sources of this package included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from harness.backbones import (
    Backbone,
    encoder_hash,
    load_pretrained_head,
)
from harness.config import (
    Config,
    PythonBackboneConfig,
    determining,
)
from harness.mappings import FAMILIES
from harness.runs import (
    Brains,
    Subject,
    hash_sources,
    split_file,
)
from harness.storage import (
    content_hash,
    make_once,
    read_json,
)
from harness.tracking.work_items import WorkItem
from tasks import Task


class SharedStart:
    """Makes the parts of step 0, or takes them from the cache.

    Nothing is shared if `Config.reuse` is off, if the backbone is a function of the user's, whose code is
    unknown, or if step 0's weights differ from the pretrained ones.

    Parameters
    ----------
    config : Config
    backbone : Backbone
        As pretrained, before a method adds to its weights.
    brains : Brains
        Of subjects whose stimuli are split.
    device : torch.device

    Attributes
    ----------
    pretrained_hash : str
        Of the encoder (`harness.backbones.encoder_hash`).
    """

    def __init__(self, config: Config, backbone: Backbone, brains: Brains, device: torch.device) -> None:
        self._config, self._backbone, self._brains, self._device = config, backbone, brains, device
        self.pretrained_hash = encoder_hash(backbone)
        self._usable = config.reuse and not isinstance(config.backbone, PythonBackboneConfig)

    def open(self, backbone: Backbone) -> None:
        """Check that step 0 is the pretrained network; otherwise nothing is shared."""
        self._usable = self._usable and encoder_hash(backbone) == self.pretrained_hash

    def make_mapping(self, item: WorkItem, make: Callable[[], object]) -> None:
        """Make a mapping of step 0 at its place."""
        # families that fit all snapshots together have no fit of step 0 alone
        if item.step or FAMILIES[self._config.mapping.family].fit_together is not None:
            make()
            return
        key = {**self._key(item.subject), "seed": item.seed(self._config)}
        self._share("mappings", key, item.mapping, make)

    def make_start(self, item: WorkItem, target: Path, make: Callable[[], object]) -> None:
        """Make the mapping that warm starts start from."""
        key = {**self._key(item.subject), "seed": item.seed(self._config), "start": True}
        self._share("mappings", key, target, make)

    def make_controls(self, subject: Subject, target: Path, make: Callable[[], object]) -> None:
        """Make the evidence of step 0 with its controls."""
        key = {
            **self._key(subject),
            "evidence": self._config.evidence.model_dump(mode="json"),
            "seed": self._config.seed,
        }
        self._share("evidence", key, target, make)

    def make_probes(
        self, tasks: Sequence[Task], probes: Sequence[Task], target: Path, make: Callable[[], object]
    ) -> None:
        """Make the folder of step 0's probes without heads, for tasks to fine-tune on and others."""
        text = self._backbone.text
        seen = None if text is None else text.fingerprint()
        if text is not None and seen is None:
            # nobody knows what zero-shot scores depend on
            make()
            return
        of_imagenet = any(task.imagenet for task in (*tasks, *probes))
        head = load_pretrained_head(self._config.backbone, self._backbone.n_features) if of_imagenet else None
        first = self._brains.load(self._brains.subjects[0])
        key = {
            **self._environment,
            "tuned": [_describe_task(task) for task in tasks],
            "probed": [_describe_task(task) for task in probes],
            "probes": self._config.probes.model_dump(mode="json", exclude={"tasks"}),
            "shifts": self._config.shifts.model_dump(mode="json"),
            "seed": self._config.seed,
            "text": seen,
            "head": None if head is None else head.fingerprint,
            "stimuli": first.fingerprint,
        }
        self._share("probes", key, target, make)

    def _share(self, kind: str, key: dict[str, Any], target: Path, make: Callable[[], object]) -> None:
        if self._usable:
            make_once(kind, key, target, make)
        else:
            make()

    def _key(self, subject: Subject) -> dict[str, Any]:
        brain = self._brains.load(subject)
        return {
            **self._environment,
            "brain": brain.fingerprint,
            # not in the fingerprint
            "places": content_hash(brain.bounding_box, [[roi.name, roi.voxels] for roi in brain.rois]),
            "split": read_json(split_file(subject.folder)),
            "mapping": determining(self._config)["mapping"],
            "batch_size": self._config.probes.batch_size,
            # these pass the network first: results depend on an image's batch in the last bits
            "n_drift": self._config.probes.n_drift if subject == self._brains.subjects[0] else None,
        }

    @cached_property
    def _environment(self) -> dict[str, Any]:
        backbone = self._backbone
        return {
            "sources": hash_sources(),
            "torch": torch.__version__,
            "device": self._device.type,
            "gpu": torch.cuda.get_device_name() if self._device.type == "cuda" else None,
            "threads": torch.get_num_threads(),
            "encoder": self.pretrained_hash,
            "preprocessing": asdict(backbone.preprocessing),
            "flags": backbone.flags,
            "layers": list(backbone.layers),
        }


def _describe_task(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "fingerprint": task.fingerprint,
        "classes": list(task.class_names),
        "templates": list(task.templates),
        "multi_label": task.multi_label,
        "shifts": {shift.name: shift.fingerprint for shift in task.shifts},
        "corruptions": list(task.corruptions),
        "imagenet": list(task.imagenet),
    }
