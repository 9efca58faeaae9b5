"""What a mapping is fitted to, checked once, and how."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from harness.mappings.mapping import Mapping
from harness.mappings.splits import Split
from harness.storage import InputError
from harness.tokens import (
    LayerTokens,
    StandardTokens,
    check_finite,
)


@dataclass(frozen=True)
class FitData:
    """Layer tokens and the responses to predict from them; several fits can share one.

    Attributes
    ----------
    tokens : LayerTokens
        Of all stimuli. `prepare_tokens` standardises them once for several fits.
    responses : float array [n_images, n_voxels]
        Finite.
    coords : float array [n_voxels, 3]
        Coordinates of the voxels. Families other than FactorTopy use only their number.
    bounding_box : float array [2, 3]
        Minimum and maximum coordinates of the subject's voxels, whichever of them are fitted.
    split : Split
        Stimuli to fit on, and held-out ones to score on.

    Raises
    ------
    InputError
        If sizes do not agree, or tokens or responses are not finite.
    """

    tokens: LayerTokens
    responses: Float[np.ndarray, "n_images n_voxels"]
    coords: Float[np.ndarray, "n_voxels 3"]
    bounding_box: Float[np.ndarray, "2 3"]
    split: Split

    def __post_init__(self) -> None:
        n_images, n_voxels = self.responses.shape
        if self.tokens.n_images != n_images:
            raise InputError(
                f"tokens of {self.tokens.n_images} stimuli, but responses to {n_images}; expected as many"
            )
        if len(self.coords) != n_voxels:
            raise InputError(
                f"coordinates of {len(self.coords)} voxels, but responses of {n_voxels}; expected as many"
            )
        last = max(self.split.train.max(), self.split.held_out.max())
        if last >= n_images:
            raise InputError(f"split names stimulus {last}, expected 0 to {n_images - 1}")
        if not np.isfinite(self.responses).all():
            raise InputError("responses are not finite for some voxels; remove these voxels")
        if not isinstance(self.tokens, StandardTokens):
            check_finite(self.tokens)

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return len(self.coords)


@dataclass(frozen=True)
class Member:
    """A snapshot, or a refit of step 0 that poses as one.

    Attributes
    ----------
    data : FitData
        The snapshot's tokens, responses and split. Coordinates are those of the first member.
    previous : int or None
        Place in the list of the snapshot before; None for step 0 and its refits.
    """

    data: FitData
    previous: int | None = None


@dataclass(frozen=True)
class FitOptions:
    """How one fit is run; the family's settings say what is fitted.

    Attributes
    ----------
    seed : int
        Seeds everything drawn: initial weights, bootstrap sample, folds, order of the batches. A fit neither
        reads nor changes the global random state.
    bootstrap : bool
        Fit on a sample of the training stimuli, drawn with replacement.
    device : str or torch.device
    progress : str or None
        Label of a progress bar; None: no bar.
    start : Mapping or None
        Warm start: begin from this mapping's parameters. It needs the same voxels, layers and settings.
        Families that are solved in closed form ignore it.
    """

    seed: int
    bootstrap: bool = False
    device: str | torch.device = "cpu"
    progress: str | None = None
    start: Mapping | None = None
