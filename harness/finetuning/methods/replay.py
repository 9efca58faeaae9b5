"""Experience replay: images of earlier tasks are trained beside new ones (Rolnick et al. 2019).

    loss = (1 − s) · mean of ℓ over the current task's images + s · mean of ℓ over replayed images

A replayed image is scored by its own task's head. Of every earlier task, a buffer keeps the same number of
images of each class, chosen at random (Chaudhry et al. 2019 find that hard to beat). Each step draws from all
buffers together, evenly and without repeats, so a class counts as much as any other. With B new images,
B·s/(1 − s) are drawn, so that s is also the share of replayed images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness.backbones import Preprocessing
from harness.config import ReplayConfig
from harness.finetuning.batches import TaskImages
from harness.finetuning.methods.objective import (
    Context,
    Objective,
    Terms,
)
from harness.finetuning.methods.tuned import TunedModel
from tasks import (
    LabelArray,
    Task,
    first_per_class,
)

# keeps buffers apart from other draws by the same seed
_STREAM = 7


def choose_buffer(labels: LabelArray, per_class: int, seed: int, place: int) -> Int[np.ndarray, " n_kept"]:
    """Choose images to keep: `per_class` of every class at random, or all that a class has; sorted.

    The choice of a number is part of that of every larger one.

    Parameters
    ----------
    labels : int array [n_images] of class indices, or [n_images, n_labels] of 0 and 1
        With multiple labels, the first `per_class` images of every label, and as many without any.
    per_class : int
    seed : int
    place : int
        Index of the task in its sequence.
    """
    order = np.random.default_rng((seed, _STREAM, place)).permutation(len(labels))
    return np.sort(order[first_per_class(labels[order], per_class)])


def count_replayed(n_new: int, share: float) -> int:
    """Count the images to replay beside `n_new` so that they are a `share` of all; at least 1."""
    return max(1, round(n_new * share / (1 - share)))


class Replay(Objective):
    """The current task's loss and, from the second task on, that of images of earlier tasks."""

    def __init__(
        self,
        model: TunedModel,
        tasks: Sequence[Task],
        preprocessing: Preprocessing,
        method: ReplayConfig,
        seed: int,
    ) -> None:
        super().__init__(model, tasks[0])
        self._tasks, self._share = tuple(tasks), method.share
        seed = seed if method.buffer_seed is None else method.buffer_seed
        self._kept = [
            TaskImages(
                task.train.select(
                    choose_buffer(
                        np.array(task.train["label"], dtype=np.int64), method.per_class, seed, place
                    )
                ),
                preprocessing,
            )
            # nothing comes after the last task
            for place, task in enumerate(tasks[:-1])
        ]

    def forward(self, images: Float[Tensor, "n_images 3 height width"], labels: Tensor) -> Terms:
        """Compute the weighted losses of new and of replayed images."""
        place = self.model.place
        if place == 0:
            return super().forward(images, labels)
        drawn = self._draw(count_replayed(len(images), self._share), place)
        parts = [images]
        targets: list[Tensor | None] = []
        for buffer, rows in zip(self._kept[:place], drawn, strict=True):
            items = [buffer[row] for row in rows]
            parts += [torch.stack([image for image, _ in items]).to(images.device)] if items else []
            own = torch.stack([label for _, label in items]).to(images.device) if items else None
            targets.append(own)
        # all together, so that batch statistics are those of the mixture
        features = self.model.backbone(torch.cat(parts))
        new, *replayed = features.split([len(images), *map(len, drawn)])
        losses = []
        for earlier, (own, target) in enumerate(zip(replayed, targets, strict=True)):
            task = self._tasks[earlier]
            logits = self.model.classify(own, earlier)
            # a head without images takes part all the same, as data-parallel training requires
            losses.append(logits.sum() if target is None else len(own) * self.task_loss(logits, target, task))
        n_replayed = sum(map(len, drawn))
        return {
            "task_loss": (1 - self._share) * self.task_loss(self.model.classify(new), labels),
            "replay_loss": self._share * torch.stack(losses).sum() / n_replayed,
        }

    def _draw(self, n_wanted: int, place: int) -> list[list[int]]:
        """Draw images from the buffers of the tasks before `place`; rows of each buffer.

        From torch's generator, which the loop seeds at every step, so a resumed run draws the same; on the
        CPU, so that every device does.
        """
        sizes = [len(buffer) for buffer in self._kept[:place]]
        n_kept = sum(sizes)
        chosen = torch.randperm(n_kept) if n_wanted <= n_kept else torch.randint(n_kept, (n_wanted,))
        drawn, rows = np.sort(chosen[:n_wanted].numpy()), []
        for start, size in zip(np.cumsum([0, *sizes[:-1]]), sizes, strict=True):
            rows.append((drawn[(drawn >= start) & (drawn < start + size)] - start).tolist())
        return rows


def build(model: TunedModel, task: Task, context: Context) -> Replay:
    """Build the objective from a run's settings."""
    method = context.method
    assert isinstance(method, ReplayConfig)
    return Replay(model, context.tasks, context.backbone.preprocessing, method, context.seed)
