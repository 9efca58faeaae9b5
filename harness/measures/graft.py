"""Graft and repair: what comes back when layers get their pretrained weights again, and what foretells it.

A graft is the fine-tuned network with the pretrained weights of some units (blocks) put back. Repair is what
it retains beyond the fine-tuned network. If rewiring is where a network forgets, the blocks whose share of
reading changed most are those whose graft repairs most. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from harness.mappings import (
    Evidence,
    stacked_weights,
)
from harness.measures.controls import Controls
from harness.measures.partial_ranks import partial_rank_test

PREDICTORS = {
    "map": "map of rewiring",
    "weight_distance": "weight distance",
    "cka_lost": "1 − CKA",
    "cka_added": "1 − CKA, added by the block",
    "gradient_share": "gradient share",
}
"""What may foretell repair: the map first, then its rivals."""

FEWEST_UNITS = 3
"""Fewest units for a rank correlation; the smallest p of three is one third."""


def changed_shares(
    controls: Controls, after: Evidence, weights: Float[np.ndarray, " n_regions"]
) -> Float[np.ndarray, " n_layers"]:
    """How much each layer's share of reading changed beyond the degraded controls, averaged over regions.

    Of region r and layer l, with the stacked weights ω of the snapshot and ω^k of the control of kind k,
    which has the region's R² at the snapshot (`Controls.match`):

        δ_r[l] = min over k of |ω_r[l] − ω^k_r[l]|, 0 where the differences have both signs
        map[l] = Σ_r weight_r δ_r[l] / Σ_r weight_r

    A mixture of two kinds of noise lies between their controls, so only a change beyond all of them to the
    same side counts, as in the verdict (`harness.measures.verdict.judge`).

    Parameters
    ----------
    controls : Controls
        Of step 0.
    after : Evidence
        Of the snapshot: the same stimuli, regions and layers.
    weights : float array [n_regions], ≥ 0
        Sum of the noise ceilings of a region's voxels, or their number.

    Returns
    -------
    float array [n_layers], in [0, 1]
    """
    found = []
    for region, r2 in enumerate(after.r2.max(axis=1)):
        now = stacked_weights(after.cross[region])
        usual = [stacked_weights(controls.match(kind, region, float(r2)).cross) for kind in controls.kinds]
        moved = now - np.stack(usual)
        one_side = (moved > 0).all(axis=0) | (moved < 0).all(axis=0)
        found.append(np.where(one_side, np.abs(moved).min(axis=0), 0.0))
    # where no ceiling is above 0, regions count alike
    known = weights if weights.sum() > 0 else np.ones_like(weights)
    return np.average(found, axis=0, weights=known)


def added_drift(lost: Sequence[float]) -> list[float]:
    """What every layer adds to the loss of similarity: 1 − CKA minus that of the layer before.

    Drift accumulates with depth, so the raw number names the last layers whichever block moved. The first
    layer is compared with 0; a layer that restores similarity has a negative number.

    Parameters
    ----------
    lost : sequence of float
        1 − CKA of every layer, from input to output.
    """
    return np.diff([0.0, *lost]).tolist()


def plan_orders(
    predictors: Mapping[str, Mapping[str, float]],
    compared: Sequence[str],
    others: Sequence[str],
    n_random: int,
    seed: int,
) -> dict[str, tuple[str, ...]]:
    """Plan in which orders units get their pretrained weights back.

    Parameters
    ----------
    predictors : mapping of name to mapping of unit to float
        Only predictors of all `compared` units give an order: the largest first, ties from input to output.
    compared : sequence of str
        Units that are ordered, from input to output.
    others : sequence of str
        Units that come last in every order: those before and after the blocks.
    n_random : int
        How many random orders there are, ``random_1`` and so on; the first ones do not depend on their
        number.
    seed : int
        Of the random orders.

    Returns
    -------
    dict of name to tuple of str
        By predictor, ``map_reversed`` beside ``map``, and random ones.
    """
    orders: dict[str, tuple[str, ...]] = {}
    for name, values in predictors.items():
        if all(unit in values for unit in compared):
            orders[name] = tuple(sorted(compared, key=lambda unit: -values[unit]))
    if "map" in orders:
        orders["map_reversed"] = orders["map"][::-1]
    rng = np.random.default_rng(seed)
    for number in range(1, n_random + 1):
        orders[f"random_{number}"] = tuple(compared[place] for place in rng.permutation(len(compared)))
    return {name: (*order, *others) for name, order in orders.items()}


def curve_area(repair: Sequence[float]) -> float:
    """Area under a curve of repair over the share of units that were put back, by the trapezoid rule.

    The mean repair on the way, in the unit of repair: an order that repairs early has a large one.

    Parameters
    ----------
    repair : sequence of float, at least two
        From no unit (0) to all of them, evenly spaced.
    """
    return float(np.trapezoid(repair, dx=1 / (len(repair) - 1)))


@dataclass(frozen=True)
class Foretold:
    """How well a predictor ranks units by the repair of their graft.

    Attributes
    ----------
    rho : float in [−1, 1]
        Spearman correlation over units.
    rho_given_depth : float in [−1, 1]
        The same with the place of a unit in the network held constant (`partial_rank_test`).
    p : float in (0, 1]
        Two-sided, of `rho_given_depth`, by permuted units: all permutations of up to 8 units, else 10,000
        drawn ones.
    smallest_p : float
        p if repair had the predictor's own order. Above .05, the test cannot find anything.
    n_units : int
    first : bool
        Whether the unit that the predictor puts first is the one whose graft repairs most.
    """

    rho: float
    rho_given_depth: float
    p: float
    smallest_p: float
    n_units: int
    first: bool


def foretell(predictor: Sequence[float], repair: Sequence[float], seed: int = 0) -> Foretold | None:
    """Correlate a predictor with repair over units; None with too few units, or if either is constant.

    Whatever is done to a network alike everywhere harms early and late units differently, and most predictors
    rise or fall with depth. So p is that of the correlation beyond depth: noise of equal size in all blocks
    is called foretold in up to 40 % of trials without this, and in 4 % with it
    (``benchmarks/graft_validity.py``).

    Parameters
    ----------
    predictor, repair : sequences of float, one per unit
        From input to output.
    seed : int
        Of drawn permutations.
    """
    x, y = np.asarray(predictor, dtype=float), np.asarray(repair, dtype=float)
    if len(x) < FEWEST_UNITS or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    depth = np.arange(len(x), dtype=float)
    found, best = (partial_rank_test(x, other, depth, seed=seed) for other in (y, x))
    rho = float(spearmanr(x, y).statistic)
    return Foretold(rho, found.rho, found.p, best.p, len(x), bool(y[int(x.argmax())] == y.max()))


def repair_share(repair: float, forgotten: float, high: float) -> float | None:
    """Repair as a share of what was forgotten; None if nothing significant was.

    Parameters
    ----------
    repair : float
    forgotten : float
        Δ of the fine-tuned network, after − before.
    high : float
        Upper end of its 95 % interval: below 0, something was forgotten.
    """
    return repair / -forgotten if high < 0 and not math.isnan(forgotten) else None


def average_gradients(shares: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """Mean over all steps of every layer's share of the squared gradient norm.

    Parameters
    ----------
    shares : mapping of step to mapping of layer to float
        Means over the steps since the snapshot before, as in ``drift/<layer>/grad_share``.
    """
    sums: dict[str, float] = {}
    before = 0
    for step in sorted(shares):
        for layer, share in shares[step].items():
            sums[layer] = sums.get(layer, 0.0) + share * (step - before)
        before = step
    return {layer: total / before for layer, total in sums.items()} if before else {}
