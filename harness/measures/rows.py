"""From a run's mappings and probes to the rows of its results: names, summaries, the noise floor.

Pure functions. The measures themselves are in `rewiring`, `alignment` and `forgetting`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from harness.brains import (
    Brain,
    Roi,
)
from harness.mappings import Mapping
from harness.measures.alignment_rows import AlignmentRows
from harness.measures.catalogue import describe
from harness.measures.entries import name_auroc
from harness.measures.forgetting import delta
from harness.measures.layer_rows import (
    name_layers,
    places_of_layers,
)
from harness.measures.predicted import predicted_voxels
from harness.measures.probes.kinds import PROBE_KINDS
from harness.measures.rewiring import (
    RoiChannels,
    compare_channels,
    confidence,
    describe_channels,
    expected_depth,
    rewiring_measures,
    summarise_rois,
)
from harness.measures.significance import (
    correct_over_rois,
    noise_floor,
)

Summary = dict[str, dict[str, float]]

MIN_CEILING = 0.05
"""Voxels with a lower noise ceiling hold nothing that could be predicted."""

MIN_NORMALISED = 10
"""Fewest voxels of a place for its R² over the noise ceiling."""


def measure_brain(
    mappings: dict[int, Mapping], refits: Sequence[Mapping], brain: Brain, seed: int
) -> Iterator[tuple[int, dict[str, float]]]:
    """Compute all metrics of a brain by name, for every snapshot in order.

    Parameters
    ----------
    mappings : dict of step to Mapping
        Including step 0.
    refits : sequence of Mapping
        At least two more fits of step 0, for the noise floor.
    brain : Brain
    seed : int
        Seed of the channel clusters.
    """
    step_0 = [describe_fit(mapping, brain, seed) for mapping in (mappings[0], *refits)]
    between = compare_all(step_0, step_0, brain)
    aligned = AlignmentRows(brain, seed)
    for step in sorted(mappings):
        mapping = mappings[step]
        values = name_mapping(mapping, brain)
        predicted = predicted_voxels([mappings[0].r2, *(refit.r2 for refit in refits)], mapping.r2)
        values |= name_layers(mapping.layer, mapping.layers, places_of_layers(brain.rois, predicted))
        values |= (alignment := aligned.name(mapping, predicted))
        if step == 0 and alignment:
            values |= aligned.name_floor([mappings[0], *refits], predicted)
        if step > 0:
            raw = compare_all(step_0, [describe_fit(mappings[step], brain, seed)], brain)
            values |= name_rewiring(raw, between)
        yield step, values


def name_probes(now: dict[str, Any], before: dict[str, Any], *tasks: str) -> dict[str, float]:
    """Name a snapshot's scores, probes, forgetting and drift; Δ is after − before, negative = forgetting.

    Δ is a difference of accuracies or, for multi-label tasks, of mean AUROC, which its name says.

    Parameters
    ----------
    now, before : dicts
        Probes files of the snapshot and of step 0: ``{"task": {measure: value}, "probe": {task: {measure:
        value}}, "multi_label": [task], "drift": {layer: {measure: value}}}``; for a sequence ``{"heads":
        {task: {measure: value}}, …}``.
    *tasks : str
        Fine-tuned tasks: changes there are no forgetting of pretraining.
    """
    values: dict[str, float] = {}
    for task, scores in (now["heads"] if "heads" in now else {tasks[0]: now["task"]}).items():
        values |= {f"task/{task}/{measure}": value for measure, value in scores.items()}
    for layer, moved in now.get("drift", {}).items():
        values |= {f"drift/{layer}/{measure}": value for measure, value in moved.items()}
    for name, scores in now["probe"].items():
        values |= {f"probe/{name}/{measure}": value for measure, value in scores.items()}
        if name not in tasks:
            several = name in now.get("multi_label", ())
            for kind in PROBE_KINDS:
                measure = kind.prefix + ("auroc" if several else "accuracy")
                if measure in scores:
                    change = name_auroc(kind.delta) if several else kind.delta
                    values[f"forgetting/{name}/{change}"] = delta(
                        before["probe"][name][measure], scores[measure]
                    )
    return values


def name_mapping(mapping: Mapping, brain: Brain) -> dict[str, float]:
    """Name the measures of one mapping: prediction and selectors by place."""
    per_voxel = {
        "brain/{}/r2": mapping.r2,
        "brain/{}/correlation": mapping.correlation,
        "selectors/{}/expected_depth": expected_depth(mapping.layer),
        "selectors/{}/confidence": confidence(mapping.layer),
    }
    if mapping.scale is not None:
        per_voxel["selectors/{}/scale"] = mapping.scale
    summary = summarise_rois(per_voxel, brain.rois, None)
    values = {name.format(place): value for place, row in summary.items() for name, value in row.items()}
    if brain.noise_ceiling is not None:
        values |= name_normalised(mapping.r2, brain.noise_ceiling, brain.rois)
    return values


def name_normalised(
    r2: Float[np.ndarray, " n_voxels"],
    noise_ceiling: Float[np.ndarray, " n_voxels"],
    rois: Sequence[Roi],
) -> dict[str, float]:
    """Name ΣR² / Σceiling of every place, over voxels whose ceiling is at least `MIN_CEILING`.

    A ratio of sums: a few voxels of low ceiling would dominate a mean of ratios. Places with fewer than
    `MIN_NORMALISED` such voxels have no row.
    """
    values: dict[str, float] = {}
    for place, voxels in {"all": np.arange(len(r2)), **{roi.name: roi.voxels for roi in rois}}.items():
        counted = voxels[noise_ceiling[voxels] >= MIN_CEILING]
        if len(counted) >= MIN_NORMALISED:
            total = noise_ceiling[counted].sum(dtype=np.float64)
            values[f"brain/{place}/r2_normalised"] = float(r2[counted].sum(dtype=np.float64) / total)
            values[f"brain/{place}/r2_normalised_voxels"] = float(len(counted))
    return values


@dataclass(frozen=True)
class Fit:
    """A mapping and, by ROI, how its voxels differ in the channels they read (empty without weights)."""

    mapping: Mapping
    channels: dict[str, RoiChannels]


def describe_fit(mapping: Mapping, brain: Brain, seed: int) -> Fit:
    """Describe the channels of a mapping once, to compare it with many."""
    if mapping.weights is None:
        return Fit(mapping, {})
    return Fit(
        mapping, {roi.name: describe_channels(mapping.weights[roi.voxels], seed) for roi in brain.rois}
    )


def compare_all(
    before: Sequence[Fit], after: Sequence[Fit], brain: Brain
) -> dict[tuple[str, str], Float[np.ndarray, "n_before n_after"]]:
    """Compute every measure of rewiring for all pairs of fits, by (place, measure).

    Weighted means are named ``<measure>_weighted``.
    """
    tables: dict[tuple[str, str], Float[np.ndarray, "n_before n_after"]] = {}
    for row, first in enumerate(before):
        for column, second in enumerate(after):
            measures = rewiring_measures(first.mapping, second.mapping)
            found = summarise_rois(measures, brain.rois, brain.noise_ceiling)
            for name, channels in first.channels.items():
                found[name] |= compare_channels(channels, second.channels[name])
            for place, values in found.items():
                for measure, value in values.items():
                    table = tables.setdefault((place, measure), np.zeros((len(before), len(after))))
                    table[row, column] = value
    return tables


def name_rewiring(
    raw: dict[tuple[str, str], Float[np.ndarray, "n_fits 1"]],
    between: dict[tuple[str, str], Float[np.ndarray, "n_fits n_fits"]],
) -> dict[str, float]:
    """Hold rewiring against the floor: raw, null, excess with interval, p, and p corrected over ROIs."""
    values: dict[str, float] = {}
    tested: dict[str, list[str]] = {}
    for (place, measure), distances in raw.items():
        name = f"rewiring/{place}/{measure}"
        tail = describe(name).tail
        if tail is None:
            values[name] = float(distances.mean())
            continue
        found = noise_floor(distances[:, 0], between[place, measure], tail, corrected=True)
        values |= {
            name: found.raw,
            f"{name}_null": found.null,
            f"{name}_excess": found.excess,
            f"{name}_excess_low": found.low,
            f"{name}_excess_high": found.high,
            f"{name}_p": found.p,
        }
        if place != "all":
            tested.setdefault(measure, []).append(f"{name}_p")
    for names in tested.values():
        corrected = correct_over_rois(np.array([values[name] for name in names]))
        values |= {f"{name}_fdr": float(p) for name, p in zip(names, corrected, strict=True)}
    return values
