"""The brain as an anchor: what step 0's mapping predicts of the brain is kept, on unlabelled images.

    loss = task loss + λ · mean over voxels of c_n · mean over images of h((ŷ_n(x; θ) − ŷ_n(x; θ₀)) / s_n)

ŷ_n(x; θ) is the response of voxel n to image x that the network θ predicts through the frozen mapping of step
0; s_n is the standard deviation of ŷ_n(·; θ₀) over the unlabelled images, c_n the voxel's noise ceiling (1 if
unknown), and h(d) = d²/2 below |d| = 1, |d| − 1/2 above (smooth-L1). With several subjects, the mean over
subjects. Dividing by s_n gives brain and controls the same scale, so that a λ means the same for each: h is
half the share of a voxel's variance that has changed.

Both networks run in evaluation mode on the unlabelled images, whatever the mode of training, so penalty and
gradient are exactly 0 at θ = θ₀ with dropout and batch norm too, and what is kept is what tracking measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from harness.backbones import Backbone
from harness.config import BrainAnchorConfig
from harness.finetuning.methods.anchor_images import choose_images
from harness.finetuning.methods.objective import (
    Anchor,
    Context,
    Objective,
    Terms,
    copy_teacher,
    same_rounding,
)
from harness.finetuning.methods.tuned import TunedModel
from harness.mappings import (
    FrozenMapping,
    Mapping,
    randomise_mapping,
    shuffle_selectors,
)
from harness.storage import InputError
from tasks import Task

# of the largest standard deviation of a voxel's predictions: a smaller one is rounding, not a prediction
CONSTANT = 1e-5
# keeps the order of images apart from other draws by the same seed
_STREAM = 11


def anchor_penalty(
    now: Float[Tensor, "n_images n_voxels"],
    before: Float[Tensor, "n_images n_voxels"],
    deviation: Float[Tensor, " n_voxels"],
    ceiling: Float[Tensor, " n_voxels"],
) -> Float[Tensor, ""]:
    """Compute the mean over voxels of c_n · mean over images of smooth-L1 of the change in units of s_n.

    Parameters
    ----------
    now, before : float tensors [n_images, n_voxels]
        Predicted responses.
    deviation : float tensor [n_voxels]
        s_n; infinite for a voxel that does not count.
    ceiling : float tensor [n_voxels], 0 to 1
    """
    change = (now - before) / deviation
    error = functional.smooth_l1_loss(change, torch.zeros_like(change), reduction="none")
    return (ceiling * error.mean(dim=0)).mean()


def choose_control(mapping: Mapping, control: str, seed: int) -> Mapping:
    """Return the mapping to anchor at: the brain's, with shuffled selectors, or a random one."""
    if control == "shuffled":
        return shuffle_selectors(mapping, seed)
    return randomise_mapping(mapping, seed) if control == "random" else mapping


@contextmanager
def evaluation(network: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode, and every module back into its own mode afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@dataclass(frozen=True)
class _Kept:
    """What one subject's frozen mapping predicts at step 0: [n_images, n_voxels] per batch, s_n and c_n."""

    before: list[Tensor]
    deviation: Tensor
    ceiling: Tensor


class BrainAnchor(Objective):
    """The task's loss and the change of predicted responses.

    The unlabelled images are cut once into batches. A backward pass draws one of them, so that the
    predictions of step 0 were computed on the very same batch, which rounds alike.
    """

    def __init__(
        self,
        model: TunedModel,
        task: Task,
        backbone: Backbone,
        method: BrainAnchorConfig,
        anchors: Sequence[Anchor],
        images: Sequence[Image.Image],
        batch: int,
        seed: int,
        device: torch.device | str,
    ) -> None:
        super().__init__(model, task)
        self._weight = method.weight
        control_seed = seed if method.control_seed is None else method.control_seed
        # in tuples: no submodules
        self._mappings = tuple(
            FrozenMapping(
                choose_control(anchor.mapping, method.control, control_seed + place),
                anchor.token_size,
                device,
            )
            for place, anchor in enumerate(anchors)
        )
        self._ceilings = tuple(anchor.ceiling for anchor in anchors)
        order = np.random.default_rng((seed, _STREAM)).permutation(len(images))
        n_batches = -(-len(images) // (method.batch or batch))
        self._batches = [
            backbone.preprocessing([images[place] for place in part])
            for part in np.array_split(order, n_batches)
        ]
        # until the first pass, which knows in which precision to run it
        self._teacher: tuple[Backbone, ...] = (copy_teacher(backbone, model, device),)
        self._kept: list[_Kept] = []

    def forward(self, images: Float[Tensor, "n_images 3 height width"], labels: Tensor) -> Terms:
        """Compute the task's loss and the weighted change of predictions on a batch of unlabelled images."""
        if not self._kept:
            self._predict_start(images.device)
        # from torch's generator, which the loop seeds at every step, so a resumed run draws the same
        place = int(torch.randint(len(self._batches), ()))
        # before the task's images, with which batch norm updates its running statistics
        now = self._predict(self.model.backbone, self._batches[place].to(images.device))
        penalties = [
            anchor_penalty(predicted, kept.before[place], kept.deviation, kept.ceiling)
            for predicted, kept in zip(now, self._kept, strict=True)
        ]
        penalty = self._weight * torch.stack(penalties).mean()
        return super().forward(images, labels) | {"penalty": penalty}

    def _predict(self, network: Backbone, images: Tensor) -> list[Float[Tensor, "n_images n_voxels"]]:
        with same_rounding(), evaluation(network):
            tokens = network.tokens(images)
        return [mapping.predict(*tokens) for mapping in self._mappings]

    @torch.no_grad()
    def _predict_start(self, device: torch.device) -> None:
        """Predict all batches at step 0, then release the pretrained copy."""
        (teacher,) = self._teacher
        by_batch = [self._predict(teacher, batch.to(device)) for batch in self._batches]
        for before, ceiling in zip(zip(*by_batch, strict=True), self._ceilings, strict=True):
            deviation = torch.cat(before).double().std(dim=0, unbiased=False).float()
            varies = deviation > CONSTANT * deviation.max()
            if not varies.any():
                raise InputError(
                    "method.images: the mapping of step 0 predicts the same response to all of them; "
                    "expected images that differ, like the brain's stimuli"
                )
            kept = torch.where(varies, deviation, torch.inf)
            self._kept.append(_Kept(list(before), kept, torch.as_tensor(ceiling).to(device)))
        self._teacher = ()


def build(model: TunedModel, task: Task, context: Context) -> BrainAnchor:
    """Build the objective from a run's settings; loads the unlabelled images."""
    method, start = context.method, context.start
    assert isinstance(method, BrainAnchorConfig)
    if start is None:
        raise InputError(
            f"method: found {method.name} without the brain's mapping of step 0, expected one, which "
            "`palimpsest finetune` fits before the first step"
        )
    images = choose_images(method, context.seed, start.seen)
    return BrainAnchor(
        model,
        task,
        context.backbone,
        method,
        start.anchors,
        images,
        context.batch,
        context.seed,
        context.device,
    )
