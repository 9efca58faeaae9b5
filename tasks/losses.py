"""The training loss, for single or multiple labels."""

from __future__ import annotations

from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional


def label_loss(
    logits: Float[Tensor, "n_images n_classes"],
    labels: Shaped[Tensor, "n_images *n_classes"],
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Compute the mean loss of a batch.

    Parameters
    ----------
    logits : float tensor [n_images, n_classes]
    labels : int tensor [n_images], or float tensor [n_images, n_classes] of 0 and 1
        Class indices: cross-entropy. Multiple labels: sigmoid binary cross-entropy, averaged over images and
        labels.
    smoothing : float
        Share ε of the target that is spread evenly (Szegedy et al. 2016): over the classes, or over presence
        and absence of every label, (1 − ε) y + ε/2.
    """
    if labels.ndim == 2:
        target = labels.to(logits.dtype)
        if smoothing:
            target = (1 - smoothing) * target + smoothing / 2
        return functional.binary_cross_entropy_with_logits(logits, target)
    return functional.cross_entropy(logits, labels, label_smoothing=smoothing)
