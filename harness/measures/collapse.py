"""Collapse: has fine-tuning broken the backbone rather than changed it?

A snapshot is collapsed if the fresh linear probe on the run's own tasks has lost what it knew at step 0, if
its features no longer tell images apart, or if weights are not finite. What its voxels read says nothing, so
it gets no verdict of rewiring. Pure functions of probes files and features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

LEVEL = 0.001
"""A fall of the probe counts if chance makes one as large in fewer than this share of cases."""

LOST_SHARE = 0.25
"""… and if it is more than this share of what the probe had over chance at step 0."""

SPREAD_LEFT = 0.02
"""Features are degenerate if less than this share of their spread at step 0 is left."""

RANK_LEFT = 1.1
"""… or if their effective rank is below this, and was not at step 0: one direction says it all."""


def describe_features(features: Float[np.ndarray, "n_images n_channels"]) -> dict[str, float]:
    """Measure whether features tell images apart.

    Returns
    -------
    dict
        ``spread``: the share of the features' mean square that varies over images, 0 (all images alike) to 1.
        ``effective_rank``: exp of the entropy of the principal components' shares of variance (Roy & Vetterli
        2007, on variances), from 1; 1 if nothing varies. ``finite``: share of the features that are finite;
        if it is below 1, the others are absent.
    """
    finite = float(np.isfinite(features).mean())
    if finite < 1:
        return {"finite": finite}
    wide = features.astype(np.float64)
    # scaled, so that squares neither overflow nor vanish
    wide /= max(float(np.abs(wide).max()), np.finfo(np.float64).tiny)
    centred = wide - wide.mean(axis=0)
    size, varying = float(np.square(wide).sum()), float(np.square(centred).sum())
    # centring leaves rounding errors in features that are all alike
    if size == 0 or varying <= 1e-12 * size:
        return {"finite": 1.0, "spread": 0.0, "effective_rank": 1.0}
    shares = np.square(np.linalg.svd(centred, compute_uv=False)) / varying
    rank = float(np.exp(stats.entropy(shares)))
    return {"finite": 1.0, "spread": varying / size, "effective_rank": rank}


@dataclass(frozen=True)
class Collapse:
    """Whether a snapshot is collapsed, and why.

    Attributes
    ----------
    probe_fell : bool
        On every one of the run's tasks, the fresh linear probe has fallen.
    degenerate : bool
        Features no longer tell images apart.
    not_finite : bool
        Weights or features are not finite.
    """

    probe_fell: bool = False
    degenerate: bool = False
    not_finite: bool = False

    @property
    def collapsed(self) -> bool:
        """Whether any reason holds."""
        return self.probe_fell or self.degenerate or self.not_finite


def find_collapse(now: Mapping[str, Any], before: Mapping[str, Any], tasks: Sequence[str]) -> Collapse | None:
    """Find out whether a snapshot is collapsed.

    Parameters
    ----------
    now, before : dicts
        Probes files of the snapshot and of step 0, with ``{"probe": {task: {"linear_accuracy": value}},
        "images": {task: {"n": number of test images}}, "health": {"features": `describe_features`,
        "weights_finite": share, "chance": {task: accuracy of the most frequent class}}}``.
    tasks : sequence of str
        Tasks that the run is fine-tuned on. Of a sequence, all must have fallen: one is forgetting. Those
        with several labels per image are not judged, only the features.

    Returns
    -------
    Collapse or None
        None if a file does not hold what it takes: it was written by an earlier version.
    """
    if any(part not in probes for part in ("health", "images") for probes in (now, before)):
        return None
    one, other = before["health"], now["health"]
    judged = [task for task in tasks if task in other["chance"]]
    return Collapse(
        probe_fell=bool(judged) and all(_fell(now, before, task) for task in judged),
        degenerate=_is_degenerate(other["features"], one["features"]),
        not_finite=other["weights_finite"] < 1 or other["features"]["finite"] < 1,
    )


def is_collapsed(now: Mapping[str, Any], before: Mapping[str, Any], tasks: Sequence[str]) -> bool:
    """Whether a snapshot is collapsed, as far as its files tell; parameters as for `find_collapse`."""
    found = find_collapse(now, before, tasks)
    return found is not None and found.collapsed


def _fell(now: Mapping[str, Any], before: Mapping[str, Any], task: str) -> bool:
    """Whether a probe's accuracy has fallen by more than chance, and by a good part of what it had."""
    n_test, chance = now["images"][task]["n"], now["health"]["chance"][task]
    first, last = (probes["probe"][task]["linear_accuracy"] for probes in (before, now))
    if first - last <= LOST_SHARE * (first - chance):
        return False
    hits = np.array([round(share * n_test) for share in (first, last)])
    return bool(stats.fisher_exact([hits, n_test - hits], alternative="greater").pvalue <= LEVEL)


def _is_degenerate(now: Mapping[str, float], before: Mapping[str, float]) -> bool:
    if "spread" not in now or "spread" not in before:
        return False
    lost = now["spread"] < SPREAD_LEFT * before["spread"]
    return lost or now["effective_rank"] < RANK_LEFT <= before["effective_rank"]


def name_collapse(
    now: Mapping[str, Any], before: Mapping[str, Any], tasks: Sequence[str]
) -> dict[str, float]:
    """Name a snapshot's collapse, its reasons (0 or 1) and what they are judged by; empty if unknown.

    Parameters as for `find_collapse`.
    """
    found = find_collapse(now, before, tasks)
    if found is None:
        return {}
    values = {
        "collapsed": found.collapsed,
        "probe_fell": found.probe_fell,
        "degenerate": found.degenerate,
        "not_finite": found.not_finite,
    }
    features = {name: now["health"]["features"].get(name) for name in ("spread", "effective_rank")}
    values |= {name: value for name, value in features.items() if value is not None}
    return {f"collapse/all/{name}": float(value) for name, value in values.items()}
