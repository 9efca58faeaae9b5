"""EWC: weights that old answers depend on are pulled to their start (Kirkpatrick et al. 2017).

    loss = cross-entropy + λ/2 Σ_i F_i (θ_i − θ⁰_i)²        F_i = E_x E_{y∼p(y|x)} (∂ log p(y|x; θ⁰) / ∂θ_i)²

F is the diagonal Fisher information of the pretrained backbone under an old head (`old_head`) on the proxy's
training images. Each image's class is drawn from the backbone's own answers; true labels would give the
empirical Fisher, which is a different quantity (Kunstner et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.backbones import Backbone
from harness.config import EwcConfig
from harness.finetuning.methods.objective import (
    Context,
    Objective,
    Terms,
    copy_frozen,
    copy_start,
)
from harness.finetuning.methods.old_head import build_old_head
from harness.finetuning.methods.tuned import TunedModel
from tasks import (
    Task,
    load_task,
)


def ewc_penalty(
    weights: Mapping[str, Tensor], start: Mapping[str, Tensor], fisher: Mapping[str, Tensor]
) -> Float[Tensor, ""]:
    """Compute ½ Σ F (θ − θ⁰)² over all of `weights`; 0 at the start."""
    parts = [(fisher[name] * (weight - start[name]).square()).sum() for name, weight in weights.items()]
    return torch.stack(parts).sum() / 2


def fisher_diagonal(
    answer: Callable[[Mapping[str, Tensor], Tensor], Tensor],
    weights: dict[str, Tensor],
    images: Tensor,
    batch_size: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Compute the squared gradient of log p(y|x), one gradient per image, mean over images.

    Parameters
    ----------
    answer : function of weights and images
        Logits [n_images, n_classes].
    weights : dict of str to Tensor
        Point at which the gradient is taken.
    images : tensor [n_images, ...]
    batch_size : int
        Gradients in memory at once.
    generator : torch.Generator
        Draws the classes, on the CPU.
    """

    def log_likelihood(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return -functional.cross_entropy(answer(weights, image[None]), label[None])

    per_image = vmap(grad(log_likelihood), in_dims=(None, 0, 0))
    found = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for batch in images.split(batch_size):
        with torch.no_grad():
            probabilities = answer(weights, batch).softmax(dim=1)
        labels = torch.multinomial(probabilities.cpu(), 1, generator=generator)[:, 0].to(batch.device)
        for name, gradient in per_image(weights, batch, labels).items():
            found[name] += gradient.square().sum(dim=0) / len(images)
    return found


def fisher_of(
    backbone: Backbone, names: set[str], proxy: Task, method: EwcConfig, device: torch.device | str, seed: int
) -> dict[str, Tensor]:
    """Compute the Fisher information of some of a pretrained encoder's weights, by name."""
    teacher = copy_frozen(backbone, device)
    old_head = build_old_head(teacher, backbone.text, proxy, device)
    rest = {f"encoder.{name}": part for name, part in teacher.encoder.state_dict().items()}
    weights = {name: part.detach() for name, part in teacher.encoder.named_parameters() if name in names}

    def answer(weights: Mapping[str, Tensor], images: Tensor) -> Tensor:
        changed = {f"encoder.{name}": part for name, part in weights.items()}
        return old_head(functional_call(teacher, {**rest, **changed}, (images,)))

    images = backbone.preprocessing(proxy.train["image"]).to(device)
    generator = torch.Generator().manual_seed(seed)
    # torch's only attention kernel with per-image gradients
    with sdpa_kernel(SDPBackend.MATH):
        return fisher_diagonal(answer, weights, images, method.fisher_batch, generator)


class Ewc(Objective):
    """The task's loss and the EWC penalty."""

    def __init__(
        self,
        model: TunedModel,
        task: Task,
        backbone: Backbone,
        method: EwcConfig,
        proxy: Task,
        device: torch.device | str,
        seed: int,
    ) -> None:
        super().__init__(model, task)
        self._start = copy_start(backbone, model, device)
        # recomputed on resume: it depends only on the pretrained weights and the seed
        self._fisher = fisher_of(backbone, set(model.trained_weights()), proxy, method, device, seed)
        self._method = method

    def forward(self, images: Float[Tensor, "n_images 3 height width"], labels: Tensor) -> Terms:
        """Compute the task's loss and the weighted penalty."""
        penalty = ewc_penalty(self.model.trained_weights(), self._start, self._fisher)
        return super().forward(images, labels) | {"penalty": self._method.weight * penalty}


def build(model: TunedModel, task: Task, context: Context) -> Ewc:
    """Build the objective from a run's settings; loads the proxy."""
    method = context.method
    assert isinstance(method, EwcConfig)
    proxy = load_task(method.proxy, method.n_proxy, 1, context.seed)
    return Ewc(model, task, context.backbone, method, proxy, context.device, context.seed)
