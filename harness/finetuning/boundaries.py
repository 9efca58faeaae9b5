"""Evaluation of a sequence's heads every few steps around the end of each task, while it is trained.

Scores go to the journal as they come, and `harness.measures.stability` measures the stability gap from them.
Nothing here draws random numbers or leaves a trace in the model, so a run with evaluation is trained to the
same bits as a run without.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import expit, softmax
from torch import Tensor

from harness.backbones import Preprocessing
from harness.config import StabilityConfig
from harness.finetuning.methods.tuned import TunedModel
from harness.measures import score_labels
from tasks import LabelArray, Task, spread_rows


def evaluation_steps(config: StabilityConfig, ends: Sequence[int]) -> list[int]:
    """Return the steps after which a sequence is evaluated, sorted; empty without evaluation.

    They are the end of every task and, around each but the last, every ``interval`` steps up to ``window``
    steps away, as far as the task before and the task after last.

    Parameters
    ----------
    config : StabilityConfig
    ends : sequence of int
        Optimizer steps done at the end of each task.
    """
    if config.window == 0 or len(ends) < 2:
        return []
    steps = set(ends)
    for before, end, after in zip([0, *ends[:-2]], ends[:-1], ends[1:], strict=True):
        near = range(config.interval, config.window + 1, config.interval)
        steps.update(end - away for away in near if end - away > before)
        steps.update(end + away for away in near if end + away <= after)
    return sorted(steps)


class BoundaryScores:
    """Scores the heads of the tasks so far on test images, between two steps of training.

    Parameters
    ----------
    model : TunedModel
    tasks : sequence of Task
        Of the run, in order.
    preprocessing : Preprocessing
        Of the backbone.
    config : StabilityConfig
    batch_size : int
        Images per forward pass.
    device : torch.device
    """

    def __init__(
        self,
        model: TunedModel,
        tasks: Sequence[Task],
        preprocessing: Preprocessing,
        config: StabilityConfig,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self._model, self._tasks, self._preprocessing = model, tasks, preprocessing
        self._config, self._batch_size, self._device = config, batch_size, device

    def measure(self, place: int) -> dict[str, float]:
        """Score the heads of the tasks up to index `place`: ``stability/<task>/accuracy``, or ``auroc``.

        The model is in training mode before and after, with the head of `place`.
        """
        self._model.eval()
        # heads made from class texts change with the text tower
        self._model.rebuild_head()
        rows = {}
        for earlier, task in enumerate(self._tasks[: place + 1]):
            images, labels = self._shown[earlier]
            self._model.choose_head(earlier)
            scores = score_labels(self._predict(images, labels.ndim == 2), labels)
            value = scores.auroc if task.multi_label else scores.accuracy
            if value is not None:
                rows[f"stability/{task.name}/{'auroc' if task.multi_label else 'accuracy'}"] = value
        self._model.choose_head(place)
        self._model.train()
        return rows

    @torch.no_grad()
    def _predict(self, images: Tensor, multi_label: bool) -> Float[np.ndarray, "n_images n_classes"]:
        logits = torch.cat(
            [self._model(part.to(self._device)).float().cpu() for part in images.split(self._batch_size)]
        ).numpy()
        return expit(logits) if multi_label else softmax(logits, axis=1)

    @cached_property
    def _shown(self) -> list[tuple[Float[Tensor, "n_images 3 height width"], LabelArray]]:
        """Preprocessed test images and labels of every task, decoded once."""
        found = []
        for task in self._tasks:
            n_images = min(self._config.n_test, len(task.test))
            split = task.test.select(spread_rows(len(task.test), n_images))
            found.append((self._preprocessing(split["image"]), np.array(split["label"], dtype=np.int64)))
        return found
