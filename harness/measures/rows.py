"""From a run's mappings and probes to the rows of its results: names, summaries, the noise floor.

Pure functions. The measures themselves are in `rewiring`, `alignment` and `forgetting`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from harness.brains import Brain
from harness.mappings import (
    FAMILIES,
    Mapping,
)
from harness.measures.alignment import (
    Hierarchy,
    hierarchy_alignment,
    voxel_ranks,
)
from harness.measures.catalogue import describe
from harness.measures.entries import name_auroc
from harness.measures.forgetting import delta
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
from harness.measures.velocity import (
    change_steps,
    region_velocity,
)

Summary = dict[str, dict[str, float]]


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
    moving = name_velocity(mappings, refits, brain) if _fitted_together(mappings[0]) else {}
    for step in sorted(mappings):
        values = name_mapping(mappings[step], brain)
        if step == 0 and "alignment/all/hierarchy" in values:
            heights = [_hierarchy(fit.mapping, brain).hierarchy for fit in step_0]
            values["alignment/all/hierarchy_null_mean"] = float(np.mean(heights))
            values["alignment/all/hierarchy_null_sd"] = float(np.std(heights, ddof=1))
        if step > 0:
            raw = compare_all(step_0, [describe_fit(mappings[step], brain, seed)], brain)
            values |= name_rewiring(raw, between)
        yield step, values | moving.get(step, {})


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


def name_velocity(
    mappings: dict[int, Mapping], refits: Sequence[Mapping], brain: Brain
) -> dict[int, dict[str, float]]:
    """Name by step how fast every place's layer distribution moves, and when it changes.

    Only where snapshots share a fit: with separate fits, two snapshots differ by the noise of two fits.
    """
    layers = {step: mapping.layer for step, mapping in mappings.items()}
    others = [mapping.layer for mapping in refits]
    places: dict[str, Any] = {"all": slice(None)} | {roi.name: roi.voxels for roi in brain.rois}
    values: dict[int, dict[str, float]] = {step: {} for step in mappings}
    for place, voxels in places.items():
        for measure, found in (
            ("velocity", region_velocity(layers, voxels)),
            ("change_step", change_steps(layers, others, voxels)),
        ):
            for step, value in found.items():
                values[step][f"selectors/{place}/{measure}"] = value
    return values


def _fitted_together(mapping: Mapping) -> bool:
    return FAMILIES[mapping.family].fit_together is not None


def name_mapping(mapping: Mapping, brain: Brain) -> dict[str, float]:
    """Name the measures of one mapping: prediction and selectors by place, and hierarchy alignment."""
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
        ceiling = summarise_rois({"ceiling": brain.noise_ceiling}, brain.rois, None)
        for place, row in ceiling.items():
            if row["ceiling"] > 0:
                # a ratio of means: a few voxels of low ceiling would dominate a mean of ratios
                values[f"brain/{place}/r2_normalised"] = values[f"brain/{place}/r2"] / row["ceiling"]
    if any(roi.rank is not None for roi in brain.rois):
        found = vars(_hierarchy(mapping, brain))
        values |= {f"alignment/all/{name}": value for name, value in found.items()}
    return values


def _hierarchy(mapping: Mapping, brain: Brain) -> Hierarchy:
    return hierarchy_alignment(expected_depth(mapping.layer), voxel_ranks(brain.rois, brain.n_voxels))


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
