"""The verdict on a snapshot: did regions rewire, were layers reweighted, did they lose signal, or nothing?

The rule, for every region. a is the layer that predicts best at step 0, b the best one at the snapshot.

- **rewired**: layers' leads over a changed beyond every kind of control (p ≤ .05), b is not a, and b is no
  control's best layer either; or p ≤ .01, and the mean depth of the layers' stacked weights moved by half a
  layer or more beyond the controls'.
- **reweighted**: not rewired, and p ≤ .01.
- **loss of signal**: neither, and the best layer's R² fell.
- **unchanged**: none of these.

p is corrected for all regions and layers. The controls are noise in the responses, in the tokens and in the
pooled features, each matched to the region's R² at the snapshot. A change counts as far as it goes beyond all
of them to the same side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from harness.mappings import (
    Evidence,
    Region,
    stacked_weights,
)
from harness.measures.controls import (
    Controls,
    Matched,
    contrast,
)
from harness.measures.verdict_rows import VerdictKind

ALPHA_REWIRED = 0.05
ALPHA_REWEIGHTED = 0.01  # smaller, because nothing but p stands behind it
MOVED = 0.5  # layers
N_MULTIPLIERS = 2000


@dataclass(frozen=True)
class RegionVerdict:
    """The verdict on one region, and what it rests on.

    Attributes
    ----------
    verdict : VerdictKind
    p : float
        Of no change beyond the controls, corrected for regions and layers, largest over the kinds.
    r2_before, r2_after : float, at most 1
        Leave-one-out R² of the best layer.
    preferred_before, preferred_after : float in [0, 1]
        Depth l/(L−1) of the best layer.
    depth_before, depth_after, depth_control : float in [0, 1]
        Mean depth under the stacked weights of the layers; of the controls, the mean over kinds.
    matched : dict of kind to float
        Noise that gives the region's control the R² of the snapshot (`Matched.level`).
    """

    verdict: VerdictKind
    p: float
    r2_before: float
    r2_after: float
    preferred_before: float
    preferred_after: float
    depth_before: float
    depth_after: float
    depth_control: float
    matched: dict[str, float]


def judge(controls: Controls, after: Evidence, seed: int) -> list[RegionVerdict]:
    """Judge every region of a snapshot.

    z of a region and layer is its change of lead beyond a kind of control (`contrast`), over its standard
    error; this includes the variance that noise adds to all stimuli together
    (`Controls.common_variance`). A region's statistic is the largest over layers of the smallest |z| over
    kinds, 0 where signs differ. p comes from a multiplier bootstrap over stimuli of max |z| over regions and
    layers (Chernozhukov, Chetverikov and Kato, Annals of Statistics 2013), the largest over kinds. Without
    any change p is 1.

    Parameters
    ----------
    controls : Controls
        Of step 0.
    after : Evidence
        Of the snapshot: the same stimuli, regions, layers and penalties.
    seed : int
        Seed of the bootstrap.
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
    common = controls.common_variance(matched)
    scores, drawn = [], []
    for regions in matched.values():
        found = [
            contrast(after.loss[:, region], control.loss, int(first[region]))
            for region, control in enumerate(regions)
        ]
        scores.append(np.stack([each.z(common[region]) for region, each in enumerate(found)]))
        drawn.append(
            np.abs(multipliers @ np.concatenate([each.spread for each in found], axis=1)).max(axis=1)
        )
    z = np.stack(scores)
    # a mixture of two kinds of noise lies between their controls, so only a change to one side of all counts
    beyond = np.where((z > 0).all(axis=0) | (z < 0).all(axis=0), np.abs(z).min(axis=0), 0.0)
    largest = beyond.max(axis=1)
    p = np.max([(1 + (each >= largest[:, None]).sum(axis=1)) / (1 + N_MULTIPLIERS) for each in drawn], axis=0)
    fell = _fell(before, after, first, last)
    depths = np.linspace(0, 1, n_layers)
    verdicts = []
    for region in range(n_regions):
        here = [matched[kind][region] for kind in controls.kinds]
        usual = {int(control.loss.mean(axis=0).argmin()) for control in here}
        gained = (z[:, region, last[region]] > 0).all()
        overtaken = last[region] != first[region] and int(last[region]) not in usual and gained
        depth_after, depth_control = _depth(after.cross[region], depths), _mean_depth(here, depths)
        moved = abs(depth_after - depth_control) * (n_layers - 1) >= MOVED
        if (overtaken and p[region] <= ALPHA_REWIRED) or (moved and p[region] <= ALPHA_REWEIGHTED):
            verdict = VerdictKind.REWIRED
        elif p[region] <= ALPHA_REWEIGHTED:
            verdict = VerdictKind.REWEIGHTED
        else:
            verdict = VerdictKind.LOSS_OF_SIGNAL if fell[region] else VerdictKind.UNCHANGED
        verdicts.append(
            RegionVerdict(
                verdict,
                float(p[region]),
                float(r2_before[region]),
                float(r2_after[region]),
                float(depths[first[region]]),
                float(depths[last[region]]),
                _depth(before.cross[region], depths),
                depth_after,
                depth_control,
                {kind: matched[kind][region].level for kind in controls.kinds},
            )
        )
    return verdicts


def _fell(
    before: Evidence,
    after: Evidence,
    first: Int[np.ndarray, " n_regions"],
    last: Int[np.ndarray, " n_regions"],
) -> Bool[np.ndarray, " n_regions"]:
    """Whether the best layer's error grew by more than 1.645 standard errors, over stimuli."""
    regions = np.arange(len(first))
    grown = after.loss[:, regions, last] - before.loss[:, regions, first]
    error = grown.std(axis=0, ddof=1) / len(grown) ** 0.5
    return grown.mean(axis=0) > np.maximum(1.645 * error, 1e-7)


def _depth(cross: Float[np.ndarray, "n_layers n_layers"], depths: Float[np.ndarray, " n_layers"]) -> float:
    return float(stacked_weights(cross) @ depths)


def _mean_depth(controls: Sequence[Matched], depths: Float[np.ndarray, " n_layers"]) -> float:
    return float(np.mean([_depth(control.cross, depths) for control in controls]))


def name_evidence(
    controls: Controls,
    after: Evidence | None,
    regions: Sequence[Region],
    layers: Sequence[str],
    seed: int,
    judged: bool = True,
) -> dict[str, float]:
    """Name a snapshot's evidence, and the verdict on it, by place; "all" is the whole brain.

    A brain's verdict is the severest of its regions' and its p the smallest, as p is corrected for them. Its
    layer weights are those of all regions together, weighted by their voxels.

    Parameters
    ----------
    controls : Controls
    after : Evidence or None
        None: step 0 itself, which gets no verdict.
    regions, layers : sequences
    seed : int
    judged : bool
        False for a collapsed snapshot: weights, but no verdict.
    """
    shown = after or controls.before
    sizes = np.array([len(region.voxels) for region in regions], dtype=float)
    crosses = {region.name: cross for region, cross in zip(regions, shown.cross, strict=True)}
    crosses["all"] = np.average(shown.cross, axis=0, weights=sizes)
    values = {
        f"evidence/{place}/layer/{layer}": float(weight)
        for place, cross in crosses.items()
        for layer, weight in zip(layers, stacked_weights(cross), strict=True)
    }
    if after is None or not judged:
        return values
    verdicts = judge(controls, after, seed)
    for region, found in zip(regions, verdicts, strict=True):
        start = f"verdict/{region.name}"
        values |= {
            f"{start}/kind": float(found.verdict),
            f"{start}/rewired": float(found.verdict == VerdictKind.REWIRED),
        }
        values |= {
            f"{start}/{measure}": value
            for measure, value in vars(found).items()
            if measure not in ("verdict", "matched")
        }
        values |= {f"{start}/matched_{kind}": level for kind, level in found.matched.items()}
    severest = max(found.verdict for found in verdicts)
    return values | {
        "verdict/all/kind": float(severest),
        "verdict/all/rewired": float(severest == VerdictKind.REWIRED),
        "verdict/all/p": min(found.p for found in verdicts),
    }
