"""Fit the mappings of work items and keep them on disk; the tokens of one subject are held at a time."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from harness.backbones import Backbone
from harness.config import (
    Config,
    MappingConfig,
    TrainedMappingConfig,
)
from harness.mappings import (
    FitData,
    FitOptions,
    Mapping,
    TooFewStimuliError,
    fit_mapping,
    fit_reference_ridge,
    load_mapping,
    load_split,
    prepare_tokens,
    save_mapping,
    save_split,
    split_brain,
)
from harness.runs import (
    Brains,
    Subject,
    reference_file,
    split_file,
    start_folder,
)
from harness.storage import (
    write_arrays,
    write_atomically,
)
from harness.tokens import LayerMeans
from harness.tracking.work_items import WorkItem
from tasks import spread_rows

log = logging.getLogger(__name__)


def prepare_split(config: Config, subject: Subject, brains: Brains) -> None:
    """Split a subject's stimuli, or check that the existing split belongs to them."""
    brain, path = brains.load(subject), split_file(subject.folder)
    if not path.exists():
        save_split(split_brain(brain, config.mapping, config.seed), path, brain.stimulus_ids)
    load_split(path, brain.stimulus_ids)


def choose_drift_images(config: Config, brains: Brains) -> list[int]:
    """Choose the first subject's stimuli that drift is measured on, evenly spaced."""
    n_stimuli = len(brains.load(brains.subjects[0]).stimulus_ids)
    return spread_rows(n_stimuli, min(config.probes.n_drift, n_stimuli)).tolist()


class Fitter:
    """Fit and save the mappings of work items.

    Parameters
    ----------
    config : Config
    folder : Path
        For a temporary file of tokens that fit nowhere else.
    brains : Brains
        Of subjects whose stimuli are split (`prepare_split`).
    device : torch.device
    quiet : bool
        Whether to show no progress bars.

    Attributes
    ----------
    layer_means : dict of layer to float array [n_images, n_channels], or None
        Of `choose_drift_images` in the open network, once the first subject's tokens have been seen.
    """

    def __init__(
        self, config: Config, folder: Path, brains: Brains, device: torch.device, quiet: bool
    ) -> None:
        self._config, self._folder, self._brains = config, folder, brains
        self._device, self._quiet = device, quiet
        self._backbone: Backbone | None = None
        self._seen: tuple[Subject, FitData] | None = None
        self.layer_means: dict[str, np.ndarray] | None = None

    def open(self, backbone: Backbone) -> None:
        """Fit this network from now on."""
        self._backbone, self._seen, self.layer_means = backbone, None, None

    def see(self, subject: Subject, name: str) -> FitData:
        """A subject's responses, and the tokens of its stimuli in the open network; kept until `forget`."""
        if self._seen is None or self._seen[0] != subject:
            assert self._backbone is not None
            self.forget()  # free the old tokens first
            brain = self._brains.load(subject)
            split = load_split(split_file(subject.folder), brain.stimulus_ids)
            first = subject == self._brains.subjects[0]
            means = LayerMeans(choose_drift_images(self._config, self._brains)) if first else None
            tokens = prepare_tokens(
                self._backbone,
                brain.stimuli,
                split,
                self._config.mapping,
                self._config.probes.batch_size,
                self._device,
                self._folder,
                self.label(f"{name}, tokens"),
                means,
            )
            if means is not None:
                self.layer_means = means.arrays(tokens.layers)
            data = FitData(tokens, brain.responses, brain.coords, brain.bounding_box, split)
            self._seen = (subject, data)
        return self._seen[1]

    def forget(self) -> None:
        """Hold no tokens any more."""
        self._seen = None

    def lacks_start(self, subject: Subject) -> bool:
        """Whether fits start from a fit of step 0 (warm starts) that is not there yet."""
        return self._warm_steps is not None and not start_folder(subject.folder).exists()

    def start_item(self, subject: Subject) -> WorkItem:
        """The fit that warm starts start from: one more of step 0, with which nothing is compared."""
        return WorkItem(subject, 0, self._config.mapping.floor_refits + 1)

    def make_start(self, item: WorkItem, name: str) -> None:
        """Fit the mapping that warm starts start from; step 0 must be open."""
        mapping = self._fit(item, f"{name}, start", self._config.mapping, None)
        save_mapping(mapping, start_folder(item.subject.folder))

    def fit(self, item: WorkItem, name: str) -> None:
        """Fit and save the mapping of an item, whose snapshot must be open."""
        config, start = self._config.mapping, None
        if self._warm_steps is not None:
            start = load_mapping(start_folder(item.subject.folder), with_learned=True)
            config = config.model_copy(update={"steps": self._warm_steps})
        save_mapping(self._fit(item, name, config, start), item.mapping)

    def make_reference(self, item: WorkItem, name: str) -> None:
        """Score the ridge regression that an item's mapping is compared with, and save its R².

        The file has no scores if there are too few stimuli, with a warning.
        """
        options = FitOptions(item.seed(self._config), self._config.mapping.bootstrap, self._device)
        arrays: dict[str, np.ndarray] = {}
        try:
            arrays["r2"] = fit_reference_ridge(self.see(item.subject, name), options)
        except TooFewStimuliError as error:
            log.warning("warning: no ridge regression beside the mapping: %s", error)
        file = reference_file(item.subject.folder, item.step)
        with write_atomically(file) as temporary:
            write_arrays(temporary, arrays, file.stem)

    def label(self, text: str) -> str | None:
        """Label of a progress bar; None: no bar."""
        return None if self._quiet else text

    @property
    def _warm_steps(self) -> int | None:
        config = self._config.mapping
        return config.warm_steps if isinstance(config, TrainedMappingConfig) else None

    def _fit(self, item: WorkItem, name: str, config: MappingConfig, start: Mapping | None) -> Mapping:
        return fit_mapping(
            self.see(item.subject, name),
            config,
            seed=item.seed(self._config),
            bootstrap=self._config.mapping.bootstrap,
            device=self._device,
            progress=self.label(f"{name}, mapping"),
            start=start,
        )
