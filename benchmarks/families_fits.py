"""Families of mappings that `families_agree.py` compares, fitted alike, and what changed between two fits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from himalaya.kernel_ridge import MultipleKernelRidgeCV
from himalaya.scoring import r2_score, r2_score_split
from jaxtyping import Bool, Float
from sklearn.model_selection import PredefinedSplit

from harness.brains.brain import Roi
from harness.config.mapping import (
    BaseMappingConfig,
    FactorTopyConfig,
    FreeSelectorsConfig,
    LayerRidgeConfig,
)
from harness.config.run import EvidenceConfig
from harness.mappings.data import FitData
from harness.mappings.fit import fit_mapping
from harness.mappings.layer_evidence import (
    MIN_R2,
    PooledTokens,
    Region,
    choose_penalties,
    measure_evidence,
    pool_tokens,
)
from harness.mappings.layer_ridge import layer_features
from harness.measures.controls import degrade
from harness.measures.predicted import counted_places, predicted_voxels
from harness.measures.rewiring import expected_depth
from harness.measures.verdict import judge
from harness.measures.verdict_rows import VerdictKind

VERDICT = "verdict"
MAPPINGS: dict[str, tuple[type[BaseMappingConfig], dict[str, Any]]] = {
    "factortopy": (FactorTopyConfig, {}),
    "factortopy, no anchor": (FactorTopyConfig, {"anchor": "none"}),
    "free selectors": (FreeSelectorsConfig, {}),
    "layer ridge": (LayerRidgeConfig, {}),
    "banded ridge": (LayerRidgeConfig, {}),
}
"""Settings of every family that fits a mapping; those not named here are the demo's."""
FAMILIES = (*MAPPINGS, VERDICT)
N_MIXTURES = 20  # drawn per concentration, beside every layer alone
CONCENTRATIONS = (0.1, 1.0)  # of the mixtures' Dirichlet distributions, as himalaya's


@dataclass(frozen=True)
class Fitted:
    """What every family says of every voxel.

    Attributes
    ----------
    layer : float array [n_voxels, n_layers]
        A distribution over layers.
    r2 : float array [n_voxels]
        On held-out stimuli; leave-one-out for the verdict.
    """

    layer: Float[np.ndarray, "n_voxels n_layers"]
    r2: Float[np.ndarray, " n_voxels"]


@dataclass(frozen=True)
class Change:
    """One place at two snapshots.

    Attributes
    ----------
    first, last : int
        Preferred layer, before and after.
    depth : float
        Change of the expected depth.
    r2_before, r2_after : float
    called : bool
        Whether the family says that the place reads another layer: for the verdict, "rewired".
    """

    first: int
    last: int
    depth: float
    r2_before: float
    r2_after: float
    called: bool


def settings_of(family: str, base: BaseMappingConfig) -> Any:
    """Settings of a family, as far as possible those of a run."""
    kind, changed = MAPPINGS[family]
    shared = set(kind.model_fields) & set(type(base).model_fields) - {"family"}
    return kind(**{name: getattr(base, name) for name in shared} | changed)


def fit(family: str, data: FitData, base: BaseMappingConfig, seed: int) -> Fitted:
    """Fit one of `MAPPINGS`."""
    config = settings_of(family, base)
    if family == "banded ridge":
        return fit_banded(data, config, seed)
    mapping = fit_mapping(data, config, seed=seed, bootstrap=config.bootstrap)
    return Fitted(mapping.layer, mapping.r2)


def fit_banded(data: FitData, config: LayerRidgeConfig, seed: int) -> Fitted:
    """Banded ridge regression: one linear kernel per layer, weighted per voxel by random search.

    Features, penalties and folds are those of `layer_ridge`. Candidates are every layer alone and mixtures of
    layers. A layer's share is what it adds to the held-out R² (product measure), 0 if that is negative;
    a voxel for which no layer adds anything has equal shares.
    """
    generator, split = np.random.default_rng(seed), data.split
    train = generator.choice(split.train, len(split.train)) if config.bootstrap else split.train
    pictures, place = np.unique(split.shown_in(train), return_inverse=True)
    folds = PredefinedSplit((generator.permutation(len(pictures)) % config.n_folds)[place])
    layers = [
        layer_features(local, global_, split.train, config.pool, config.n_components).numpy()
        for local, global_ in zip(data.tokens.local, data.tokens.global_, strict=True)
    ]
    n_layers = len(layers)
    mixtures = [generator.dirichlet(np.full(n_layers, each), N_MIXTURES) for each in CONCENTRATIONS]
    options = {
        "n_iter": np.vstack([np.eye(n_layers).clip(1e-6), *mixtures]),
        "alphas": np.array(config.alphas, dtype=np.float32),
        "score_func": r2_score,
        "progress_bar": False,
    }
    model = MultipleKernelRidgeCV("precomputed", solver_params=options, fit_intercept=True, cv=folds)
    model.fit(np.stack([x[train] @ x[train].T for x in layers]), data.responses[train].astype(np.float32))
    unseen = np.stack([x[split.held_out] @ x[train].T for x in layers])
    truth = np.asarray(data.responses)[split.held_out].astype(np.float32)
    r2 = r2_score(truth, model.predict(unseen))
    parts = np.exp(model.deltas_)[:, None] * (unseen @ model.dual_coef_)  # by layer, up to an intercept
    parts, truth = parts - parts.mean(axis=1, keepdims=True), truth - truth.mean(axis=0)
    shares = np.nan_to_num(r2_score_split(truth, parts)).clip(min=0).T
    total = shares.sum(axis=1, keepdims=True)
    return Fitted(
        np.where(total > 0, shares / np.where(total > 0, total, 1), 1 / n_layers), np.nan_to_num(r2)
    )


def compare(before: Fitted, after: Fitted, rois: Sequence[Roi]) -> dict[str, Change]:
    """Changes of every region with enough voxels that are predicted at either end, by name."""
    changes = {}
    for region in counted_regions(rois, predicted_voxels(before.r2, after.r2)):
        place, voxels = region.name, region.voxels
        first, last = (int(each.layer[voxels].mean(axis=0).argmax()) for each in (before, after))
        depth = (expected_depth(after.layer) - expected_depth(before.layer))[voxels].mean()
        r2 = [float(each.r2[voxels].mean()) for each in (before, after)]
        changes[place] = Change(first, last, float(depth), *r2, first != last)
    return changes


def counted_regions(rois: Sequence[Roi], predicted: Bool[np.ndarray, " n_voxels"]) -> list[Region]:
    """Regions with enough predicted voxels, with these voxels."""
    return [Region(name, found) for name, found in counted_places(rois, predicted).items() if name != "all"]


class EvidenceOf:
    """Closed-form evidence of step 0, its controls, and verdicts on later snapshots, without files.

    Parameters
    ----------
    data : FitData
        Of step 0.
    rois : sequence of Roi
    config : EvidenceConfig
    seed : int
    """

    def __init__(self, data: FitData, rois: Sequence[Roi], config: EvidenceConfig, seed: int) -> None:
        self._config, self._seed = config, seed
        rows = np.random.default_rng(seed).permutation(len(data.responses))[: config.n_stimuli]
        self._rows = np.sort(rows)
        pooled, responses = self._read(data)
        self._penalties, self._r2 = choose_penalties(pooled, responses)
        self.regions = counted_regions(rois, self._r2 > MIN_R2)
        self._controls = degrade(pooled, responses, self.regions, self._penalties, seed, config.n_draws)
        self._features, self._responses = pooled.features, responses

    def _read(self, data: FitData) -> tuple[PooledTokens, torch.Tensor]:
        pooled = pool_tokens(data.tokens, self._rows, self._config.pool)
        return pooled, torch.as_tensor(data.responses[self._rows], dtype=torch.float32)

    def fitted(self) -> Fitted:
        """Every voxel's best layer at step 0, with the whole share."""
        alone = [Region(str(voxel), np.array([voxel])) for voxel in range(len(self._r2))]
        r2 = measure_evidence(self._features, self._responses, alone, self._penalties).r2
        return Fitted(np.eye(r2.shape[1])[r2.argmax(axis=1)], self._r2)

    def judge(self, data: FitData) -> dict[str, Change]:
        """Judge a later snapshot."""
        pooled, responses = self._read(data)
        after = measure_evidence(pooled.features, responses, self.regions, self._penalties)
        verdicts = judge(self._controls, after, self._seed)
        n_layers = len(pooled.layers)
        return {
            region.name: change_of(asdict(found), n_layers, found.verdict)
            for region, found in zip(self.regions, verdicts, strict=True)
        }


def change_of(found: dict[str, Any], n_layers: int, kind: float) -> Change:
    """The change that a verdict rests on; `found` has the names of `RegionVerdict`."""
    first, last = (round(found[f"preferred_{end}"] * (n_layers - 1)) for end in ("before", "after"))
    depth = found["depth_after"] - found["depth_before"]
    return Change(first, last, depth, found["r2_before"], found["r2_after"], kind == VerdictKind.REWIRED)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and the processor seconds that it took."""
    began = time.process_time()
    return call(), time.process_time() - began
