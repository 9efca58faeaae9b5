"""The verdict on a snapshot: did regions rewire, were layers reweighted, did they lose signal, or nothing?

The rule, for every region. a is the layer that predicts best at step 0, b the best one at the snapshot.

- **rewired**: layers' leads over a changed by more than in every kind of control (p ≤ α), b is not a, and b is
  no control's best layer either.
- **reweighted**: p ≤ α, but the best layer is still a's, or a control's.
- **loss of signal**: p > α, and the best layer's R² fell.
- **unchanged**: none of these.

p is corrected for all regions and layers, and is the largest over the kinds of controls: noise in the
responses, in the tokens and in the pooled features, each matched to the region's R² at the snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Float

from harness.mappings import (
    Evidence,
    stacked_weights,
)
from harness.measures.controls import (
    Controls,
    Matched,
    contrast,
)

ALPHA = 0.05
N_MULTIPLIERS = 2000


class Verdict(IntEnum):
    """What happened to a region, by severity; the numbers stand in results."""

    UNCHANGED = 0
    LOSS_OF_SIGNAL = 1
    REWEIGHTED = 2
    REWIRED = 3


@dataclass(frozen=True)
class RegionVerdict:
    """The verdict on one region, and what it rests on.

    Attributes
    ----------
    verdict : Verdict
    p : float
        Of no change beyond the controls, corrected for regions and layers, largest over the kinds.
    r2_before, r2_after : float, at most 1
        Leave-one-out R² of the best layer.
    preferred_before, preferred_after : float in [0, 1]
        Depth l/(L−1) of the best layer.
    depth_before, depth_after, depth_control : float in [0, 1]
        Mean depth under the stacked weights of the layers; of the controls, the mean over kinds.
    """

    verdict: Verdict
    p: float
    r2_before: float
    r2_after: float
    preferred_before: float
    preferred_after: float
    depth_before: float
    depth_after: float
    depth_control: float


def judge(controls: Controls, after: Evidence, seed: int, alpha: float = ALPHA) -> list[RegionVerdict]:
    """Judge every region of a snapshot.

    p comes from a multiplier bootstrap over stimuli of max |z| over regions and layers (Chernozhukov,
    Chetverikov and Kato, Annals of Statistics 2013), with z divided by the controls' `inflation`. An unchanged
    snapshot has z = 0 and p = 1.

    Parameters
    ----------
    controls : Controls
        Of step 0.
    after : Evidence
        Of the snapshot: the same stimuli, regions, layers and penalties.
    seed : int
        Seed of the bootstrap.
    alpha : float
    """
    n_stimuli, n_regions, n_layers = after.loss.shape
    before = controls.before
    r2_before, r2_after = before.r2.max(axis=1), after.r2.max(axis=1)
    first, last = before.r2.argmax(axis=1), after.r2.argmax(axis=1)
    matched = {
        kind: [controls.match(kind, region, float(r2_after[region])) for region in range(n_regions)]
        for kind in controls.kinds
    }
    multipliers = np.random.default_rng(seed).standard_normal((N_MULTIPLIERS, n_stimuli))
    z: dict[str, Float[np.ndarray, "n_regions n_layers"]] = {}
    p = np.zeros(n_regions)
    for kind, regions in matched.items():
        found = [
            contrast(after.loss[:, region], control.loss, int(first[region]))
            for region, control in enumerate(regions)
        ]
        z[kind] = np.stack([score for score, _ in found]) / controls.inflation(kind)
        drawn = np.abs(multipliers @ np.concatenate([spread for _, spread in found], axis=1)).max(axis=1)
        largest = np.abs(z[kind]).max(axis=1)
        p = np.maximum(p, (1 + (drawn >= largest[:, None]).sum(axis=1)) / (1 + N_MULTIPLIERS))
    fell = _fell(before, after, first, last)
    depths = np.linspace(0, 1, n_layers)
    verdicts = []
    for region in range(n_regions):
        here = [matched[kind][region] for kind in controls.kinds]
        usual = {int(control.loss.mean(axis=0).argmin()) for control in here}
        gained = min(z[kind][region, last[region]] for kind in controls.kinds) > 0
        if p[region] <= alpha:
            moved = last[region] != first[region] and int(last[region]) not in usual and gained
            verdict = Verdict.REWIRED if moved else Verdict.REWEIGHTED
        else:
            verdict = Verdict.LOSS_OF_SIGNAL if fell[region] else Verdict.UNCHANGED
        verdicts.append(
            RegionVerdict(
                verdict,
                float(p[region]),
                float(r2_before[region]),
                float(r2_after[region]),
                float(depths[first[region]]),
                float(depths[last[region]]),
                _depth(before.cross[region], depths),
                _depth(after.cross[region], depths),
                _mean_depth(here, depths),
            )
        )
    return verdicts


def _fell(
    before: Evidence, after: Evidence, first: np.ndarray, last: np.ndarray
) -> Float[np.ndarray, " n_regions"]:
    """Whether the best layer's error grew by more than 1.645 standard errors, over stimuli."""
    regions = np.arange(len(first))
    grown = after.loss[:, regions, last] - before.loss[:, regions, first]
    error = grown.std(axis=0, ddof=1) / len(grown) ** 0.5
    return grown.mean(axis=0) > np.maximum(1.645 * error, 1e-7)


def _depth(cross: Float[np.ndarray, "n_layers n_layers"], depths: Float[np.ndarray, " n_layers"]) -> float:
    return float(stacked_weights(cross) @ depths)


def _mean_depth(controls: Sequence[Matched], depths: Float[np.ndarray, " n_layers"]) -> float:
    return float(np.mean([_depth(control.cross, depths) for control in controls]))
