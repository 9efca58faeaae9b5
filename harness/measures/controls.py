"""Degraded controls: what the evidence of step 0 looks like after a loss of signal that rewires nothing.

Noise in the tokens or the responses lowers every layer's R², and not by the same share. Only what differs
from step 0 by more than such controls, at the same R², can be rewiring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from harness.mappings import (
    Evidence,
    PooledTokens,
    Region,
    measure_evidence,
)

RESPONSE_NOISE = "response_noise"
TOKEN_NOISE, FEATURE_NOISE = NOISES = ("token_noise", "feature_noise")
LEVELS = (0.5, 1.0, 2.0, 4.0)
"""Noise of the controls, in standard deviations of step 0."""


@dataclass(frozen=True)
class Degraded:
    """Evidence under one kind of noise at growing levels, averaged over draws.

    Attributes
    ----------
    loss : float array [n_levels, n_stimuli, n_regions, n_layers]
        `Evidence.loss`; the first level is step 0 without noise.
    cross : float array [n_levels, n_regions, n_layers, n_layers]
    error : float array [n_levels, n_regions, n_layers]
        Standard error over stimuli of a layer's lead in a single draw beyond that in the others (`contrast`),
        as root mean square over draws; 0 at the first level.
    inflation : float, at least 1
        Root mean square of that lead over its error. Above 1, because noise in the training images shifts the
        errors of all stimuli together, which their spread does not show.
    """

    loss: Float[np.ndarray, "n_levels n_stimuli n_regions n_layers"]
    cross: Float[np.ndarray, "n_levels n_regions n_layers n_layers"]
    error: Float[np.ndarray, "n_levels n_regions n_layers"]
    inflation: float

    def common_variance(
        self, level: float, levels: Sequence[float]
    ) -> Float[np.ndarray, "n_regions n_layers"]:
        """Variance of a lead's mean at a level of noise that its spread over stimuli does not show.

        (κ² − 1) · error², κ the `inflation`. Squared errors are interpolated, as losses are.
        """
        squared = self.error**2
        above = min(max(int(np.searchsorted(levels, level)), 1), len(levels) - 1)
        share = min(1.0, (level - levels[above - 1]) / (levels[above] - levels[above - 1]))
        return (self.inflation**2 - 1) * ((1 - share) * squared[above - 1] + share * squared[above])


@dataclass(frozen=True)
class Matched:
    """One region of a control, at the R² of a snapshot.

    Attributes
    ----------
    loss : float array [n_stimuli, n_layers]
    cross : float array [n_layers, n_layers]
    level : float
        Noise in standard deviations, interpolated.
    """

    loss: Float[np.ndarray, "n_stimuli n_layers"]
    cross: Float[np.ndarray, "n_layers n_layers"]
    level: float


@dataclass(frozen=True)
class Controls:
    """Step 0 and its degraded versions; shared by all snapshots of a run.

    Attributes
    ----------
    before : Evidence
        Of step 0, with what response noise adds.
    degraded : dict of kind to Degraded
        "token_noise": independent noise in every token. "feature_noise": independent noise in every pooled
        feature, so local ones lose as much as the global ones.
    levels : tuple of float
        Of all kinds, from 0.
    """

    before: Evidence
    degraded: dict[str, Degraded]
    levels: tuple[float, ...] = (0.0, *LEVELS)

    @property
    def kinds(self) -> tuple[str, ...]:
        """All kinds of controls."""
        return (RESPONSE_NOISE, *self.degraded)

    def common_variance(
        self, matched: Mapping[str, Sequence[Matched]]
    ) -> Float[np.ndarray, "n_regions n_layers"]:
        """Variance of every lead's mean that a snapshot's noise may have added, whichever kind it is.

        The largest over kinds. The noise of a network is that of all its regions, so its level is the median
        over them: a region that changed is not taken for a noisy one.

        Parameters
        ----------
        matched : mapping of kind to one `Matched` per region
        """
        each = [
            degraded.common_variance(
                float(np.median([control.level for control in matched[kind]])), self.levels
            )
            for kind, degraded in self.degraded.items()
        ]
        return np.max(each, axis=0) if each else np.zeros(self.before.loss.shape[1:])

    def match(self, kind: str, region: int, r2: float) -> Matched:
        """Return the control of a kind whose best layer has R² `r2`; step 0 itself if that is no higher.

        Losses are interpolated between levels. Past the last level, response noise does the rest.
        """
        if kind == RESPONSE_NOISE:
            return self._add_response_noise(
                self.before.loss[:, region], self.before.cross[region], r2, level=0.0
            )
        degraded = self.degraded[kind]
        return _interpolate(
            degraded.loss[:, :, region], degraded.cross[:, region], self.levels, r2
        ) or self._add_response_noise(
            degraded.loss[-1, :, region], degraded.cross[-1, region], r2, self.levels[-1]
        )

    def _add_response_noise(
        self,
        loss: Float[np.ndarray, "n_stimuli n_layers"],
        cross: Float[np.ndarray, "n_layers n_layers"],
        r2: float,
        level: float,
    ) -> Matched:
        noise_loss, noise_cross = self.before.noise_loss, self.before.noise_cross
        assert noise_loss is not None and noise_cross is not None
        mean, added = loss.mean(axis=0), noise_loss.mean(axis=0)
        # (mean + v·added)/(1 + v) = 1 − r2 of the best layer, linear in v for each layer
        with np.errstate(divide="ignore", invalid="ignore"):
            each = (1 - r2 - mean) / (added - (1 - r2))
        # the layer that still reaches r2 at the largest variance is the best one there
        variance = float(np.max(np.where(np.isfinite(each) & (added > 1 - r2), each, 0.0), initial=0.0))
        return Matched(
            (loss + variance * noise_loss) / (1 + variance),
            (cross + variance * noise_cross) / (1 + variance),
            level if level else variance**0.5,
        )


def _interpolate(
    loss: Float[np.ndarray, "n_levels n_stimuli n_layers"],
    cross: Float[np.ndarray, "n_levels n_layers n_layers"],
    levels: Sequence[float],
    r2: float,
) -> Matched | None:
    """Interpolate to the level at which the best layer has R² `r2`; None past the last."""
    best = [float(each) for each in 1 - loss.mean(axis=1).min(axis=1)]
    if r2 >= best[0]:
        return Matched(loss[0], cross[0], levels[0])
    for lower, (above, below) in enumerate(pairwise(best)):
        if below <= r2 <= above:
            share = (above - r2) / max(above - below, 1e-12)
            return Matched(
                (1 - share) * loss[lower] + share * loss[lower + 1],
                (1 - share) * cross[lower] + share * cross[lower + 1],
                (1 - share) * levels[lower] + share * levels[lower + 1],
            )
    return None


def degrade(
    pooled: PooledTokens,
    responses: Float[Tensor, "n_images n_voxels"],
    regions: Sequence[Region],
    penalties: Sequence[float],
    seed: int,
    n_draws: int = 4,
    label: Callable[[Sequence[int]], Iterator[int]] = iter,
) -> Controls:
    """Compute the evidence of step 0 and of its degraded controls.

    Parameters
    ----------
    pooled : PooledTokens
        Of step 0.
    responses, regions, penalties
        As for `measure_evidence`.
    seed : int
        Seed of the noise.
    n_draws : int, at least 2
        Draws per kind and level.
    label : function
        Wraps the sequence of draws, to show progress.
    """
    before = measure_evidence(pooled.features, responses, regions, penalties, with_noise=True)
    spreads = {
        TOKEN_NOISE: pooled.token_spread,
        FEATURE_NOISE: tuple(layer.std(dim=0, correction=0) for layer in pooled.features),
    }
    device = pooled.features[0].device
    generator = torch.Generator(device).manual_seed(seed)
    drawn: dict[str, list[list[Evidence]]] = {kind: [[] for _ in LEVELS] for kind in spreads}
    for _ in label(range(n_draws)):
        for kind, spread in spreads.items():
            for place, level in enumerate(LEVELS):
                noisy = [
                    layer
                    + level
                    * deviation
                    * torch.randn(layer.shape, generator=generator, device=device, dtype=layer.dtype)
                    for layer, deviation in zip(pooled.features, spread, strict=True)
                ]
                drawn[kind][place].append(measure_evidence(noisy, responses, regions, penalties))
    degraded = {}
    for kind, levels in drawn.items():
        losses = np.stack([[draw.loss for draw in draws] for draws in levels])
        crosses = np.stack([[draw.cross for draw in draws] for draws in levels])
        degraded[kind] = Degraded(
            np.concatenate([before.loss[None], losses.mean(axis=1)]),
            np.concatenate([before.cross[None], crosses.mean(axis=1)]),
            *_spread_of_draws(before, losses, crosses),
        )
    return Controls(before, degraded)


def _spread_of_draws(
    before: Evidence,
    losses: Float[np.ndarray, "n_levels n_draws n_stimuli n_regions n_layers"],
    crosses: Float[np.ndarray, "n_levels n_draws n_regions n_layers n_layers"],
) -> tuple[Float[np.ndarray, "n_levels+1 n_regions n_layers"], float]:
    """Compare every draw with the mean of the others, matched like a snapshot.

    Returns
    -------
    error, inflation
        As in `Degraded`.
    """
    n_levels, n_draws, _, n_regions, n_layers = losses.shape
    error = np.zeros((n_levels + 1, n_regions, n_layers))
    scores = []
    for region in range(n_regions):
        preferred = int(before.loss[:, region].mean(axis=0).argmin())
        found: list[list[Contrast]] = [[] for _ in range(n_levels)]
        for draw in range(n_draws):
            others = [other for other in range(n_draws) if other != draw]
            loss, cross = (
                np.concatenate([start[None], drawn[:, others].mean(axis=1)])
                for start, drawn in (
                    (before.loss[:, region], losses[:, :, :, region]),
                    (before.cross[region], crosses[:, :, region]),
                )
            )
            for level, contrasts in enumerate(found):
                own = losses[level, draw, :, region]
                matched = _interpolate(loss, cross, (0.0, *LEVELS), 1 - float(own.mean(axis=0).min()))
                if matched is not None:
                    contrasts.append(contrast(own, matched.loss, preferred))
        for level, contrasts in enumerate(found, 1):
            scores += [np.delete(each.z(), preferred) for each in contrasts]
            # past the last level nothing is matched: there the level below has to do
            error[level, region] = (
                np.sqrt(np.mean([each.error**2 for each in contrasts], axis=0))
                if contrasts
                else error[level - 1, region]
            )
    inflation = float(np.sqrt(np.mean(np.square(scores)))) if scores else 1.0
    return error, max(1.0, inflation)


@dataclass(frozen=True)
class Contrast:
    """Each layer's lead over the preferred one beyond that in a control, paired over stimuli.

    d_i[l] = (loss_i[preferred] − loss_i[l]) − the same of the control: positive where l gained.

    Attributes
    ----------
    mean : float array [n_layers]
        Mean of d; 0 for the preferred layer.
    error : float array [n_layers]
        Standard error of the mean over stimuli.
    spread : float array [n_stimuli, n_layers]
        Each stimulus' share in the random part of mean / error: (d_i − mean) / (n · error).
    """

    mean: Float[np.ndarray, " n_layers"]
    error: Float[np.ndarray, " n_layers"]
    spread: Float[np.ndarray, "n_stimuli n_layers"]

    def z(self, variance: Float[np.ndarray, " n_layers"] | float = 0.0) -> Float[np.ndarray, " n_layers"]:
        """Mean over its standard error, to which more variance may be added; 0 where nothing varies."""
        total = np.sqrt(self.error**2 + variance)
        return np.where(self.error > 0, self.mean / np.where(total > 0, total, 1.0), 0.0)


def contrast(
    loss: Float[np.ndarray, "n_stimuli n_layers"],
    control: Float[np.ndarray, "n_stimuli n_layers"],
    preferred: int,
) -> Contrast:
    """Compare each layer's lead over the preferred one with the control's."""
    lead = (loss[:, [preferred]] - loss) - (control[:, [preferred]] - control)
    mean, error = lead.mean(axis=0), lead.std(axis=0, ddof=1) / len(loss) ** 0.5
    # equal numbers differ by rounding only
    varies = error > 1e-7
    error = np.where(varies, error, 0.0)
    spread = np.where(varies, (lead - mean) / (len(loss) * np.where(varies, error, 1.0)), 0.0)
    return Contrast(mean, error, spread)
