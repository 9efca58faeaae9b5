"""From a run's mappings and probes to the rows of its results: names, summaries, the noise floor.

Pure functions. The measures themselves are in `rewiring`, `alignment` and `forgetting`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from harness.brains import (
    Brain,
    Roi,
)
from harness.mappings import (
    FAMILIES,
    Mapping,
)
from harness.measures.alignment_rows import AlignmentRows
from harness.measures.catalogue import describe
from harness.measures.collapse import name_collapse
from harness.measures.forgetting import delta
from harness.measures.image_bootstrap import (
    delta_interval,
    read_change,
)
from harness.measures.layer_rows import (
    name_layers,
    places_of_layers,
)
from harness.measures.network_entries import name_auroc
from harness.measures.predicted import (
    counted_places,
    predicted_voxels,
)
from harness.measures.probes.kinds import (
    PROBE_KINDS,
    ProbeKind,
)
from harness.measures.rewiring import (
    RoiChannels,
    compare_channels,
    confidence,
    describe_channels,
    expected_depth,
    rewiring_measures,
    summarise_places,
    summarise_rois,
)
from harness.measures.shift_rows import name_shifts
from harness.measures.significance import noise_floor
from harness.measures.velocity import (
    change_steps,
    region_velocity,
)

Summary = dict[str, dict[str, float]]

MIN_CEILING = 0.05
"""Voxels with a lower noise ceiling hold nothing that could be predicted."""

MIN_NORMALISED = 10
"""Fewest voxels of a place for its R² over the noise ceiling."""


def measure_brain(
    mappings: dict[int, Mapping],
    refits: Sequence[Mapping],
    brain: Brain,
    seed: int,
    steps: Collection[int] | None = None,
    references: dict[int, Float[np.ndarray, " n_voxels"] | None] | None = None,
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
    steps : collection of int, optional
        Compute only those of these snapshots.
    references : dict of step to float array [n_voxels] or None, optional
        R² of the ridge regression beside each mapping.
    """
    step_0 = (mappings[0], *refits)
    aligned = AlignmentRows(brain, seed)
    moving = name_velocity(mappings, refits, brain) if _fitted_together(mappings[0]) else {}
    for step in sorted(mappings if steps is None else mappings.keys() & set(steps)):
        mapping = mappings[step]
        values = name_mapping(mapping, brain, (references or {}).get(step))
        predicted = predicted_voxels([fit.r2 for fit in step_0], mapping.r2)
        values |= name_layers(mapping.layer, mapping.layers, places_of_layers(brain.rois, predicted))
        values |= (alignment := aligned.name(mapping, predicted))
        if step == 0 and alignment:
            values |= aligned.name_floor(list(step_0), predicted)
        if step > 0:
            values |= compare_with_start(step_0, mapping, predicted, brain, seed)
        yield step, values | moving.get(step, {})


def name_probes(now: dict[str, Any], before: dict[str, Any], *tasks: str) -> dict[str, float]:
    """Name a snapshot's scores, probes, forgetting (Δ, after − before: negative), drift and collapse.

    Δ is a difference of accuracies or, for multi-label tasks, of mean AUROC, which its name says.

    Parameters
    ----------
    now, before : dicts
        Probes files of the snapshot and of step 0: ``{"task": {measure: value}, "probe": {task: {measure:
        value}}, "multi_label": [task], "shifts": …, "drift": {layer: {measure: value}}, "images": {task:
        {"n": value, "hash": value, "right": {scoring: record}}}, "health": …}``; for a sequence ``{"heads":
        {task: {measure: value}}, …}``. Without records of images, as in older files, there are no intervals
        and numbers of images.
    *tasks : str
        Fine-tuned tasks: changes there are no forgetting of pretraining.
    """
    values: dict[str, float] = {}
    for task, scores in (now["heads"] if "heads" in now else {tasks[0]: now["task"]}).items():
        values |= {f"task/{task}/{measure}": value for measure, value in scores.items()}
    for layer, moved in now.get("drift", {}).items():
        values |= {f"drift/{layer}/{measure}": value for measure, value in moved.items()}
    values |= {f"probe/{task}/n_test": float(found["n"]) for task, found in now.get("images", {}).items()}
    for name, scores in now["probe"].items():
        values |= {f"probe/{name}/{measure}": value for measure, value in scores.items()}
        if name not in tasks:
            several = name in now.get("multi_label", ())
            for kind in PROBE_KINDS:
                measure = kind.prefix + ("auroc" if several else "accuracy")
                if measure in scores:
                    change = f"forgetting/{name}/{name_auroc(kind.delta) if several else kind.delta}"
                    values[change] = delta(before["probe"][name][measure], scores[measure])
                    values |= name_interval(change, now, before, name, kind)
    return values | name_shifts(now, before) | name_collapse(now, before, tasks)


def name_interval(
    change: str, now: dict[str, Any], before: dict[str, Any], task: str, kind: ProbeKind
) -> dict[str, float]:
    """Name the ends of a Δ's interval over test images; empty where images are not on record."""
    found = read_change(now, before, task, kind.name)
    if found is None:
        return {}
    # where nothing differs, not even the features, Δ is 0 by definition
    ends = (0.0, 0.0) if now == before else delta_interval(found)
    return {} if ends is None else {f"{change}_low": ends[0], f"{change}_high": ends[1]}


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


def name_mapping(
    mapping: Mapping, brain: Brain, reference: Float[np.ndarray, " n_voxels"] | None = None
) -> dict[str, float]:
    """Name the measures of one mapping: prediction, also of the ridge beside it, and selectors by place."""
    per_voxel = {
        "brain/{}/r2": mapping.r2,
        "brain/{}/correlation": mapping.correlation,
        "selectors/{}/expected_depth": expected_depth(mapping.layer),
        "selectors/{}/confidence": confidence(mapping.layer),
    }
    if reference is not None:
        per_voxel["brain/{}/ridge_r2"] = reference
    if mapping.scale is not None:
        per_voxel["selectors/{}/scale"] = mapping.scale
    summary = summarise_rois(per_voxel, brain.rois, None)
    values = {name.format(place): value for place, row in summary.items() for name, value in row.items()}
    if brain.noise_ceiling is not None:
        values |= name_normalised(mapping.r2, brain.noise_ceiling, brain.rois)
    return values


def normalise_r2(
    r2: Float[np.ndarray, " n_voxels"], noise_ceiling: Float[np.ndarray, " n_voxels"]
) -> Float64[np.ndarray, " n_voxels"]:
    """R² of every voxel over its noise ceiling; NaN where that is below `MIN_CEILING`."""
    found = np.full(len(r2), np.nan)
    return np.divide(r2, noise_ceiling, out=found, where=noise_ceiling >= MIN_CEILING)


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


def compare_with_start(
    step_0: Sequence[Mapping],
    now: Mapping,
    predicted: Bool[np.ndarray, " n_voxels"],
    brain: Brain,
    seed: int,
) -> dict[str, float]:
    """Name all measures of rewiring of one snapshot, over the voxels that are predicted at either end.

    Parameters
    ----------
    step_0 : sequence of Mapping
        All fits of step 0, at least three.
    now : Mapping
        Of the snapshot.
    predicted : bool array [n_voxels]
        From `predicted_voxels`.
    brain : Brain
    seed : int
        Seed of the channel clusters.
    """
    places = counted_places(brain.rois, predicted)
    before = [describe_fit(fit, places, seed) for fit in step_0]
    after = [describe_fit(now, places, seed)]
    raw, between = (compare_all(before, fits, places, brain.noise_ceiling) for fits in (after, before))
    voxels = {"all": slice(None)} | {roi.name: roi.voxels for roi in brain.rois}
    counts = {f"rewiring/{place}/n_predicted": float(predicted[own].sum()) for place, own in voxels.items()}
    return counts | name_rewiring(raw, between)


@dataclass(frozen=True)
class Fit:
    """A mapping and, by ROI, how its voxels differ in the channels they read (empty without weights)."""

    mapping: Mapping
    channels: dict[str, RoiChannels]


def describe_fit(mapping: Mapping, places: dict[str, Int[np.ndarray, " _"]], seed: int) -> Fit:
    """Describe the channels of a mapping once, to compare it with many."""
    if mapping.weights is None:
        return Fit(mapping, {})
    return Fit(
        mapping,
        {
            place: describe_channels(mapping.weights[voxels], seed)
            for place, voxels in places.items()
            if place != "all"
        },
    )


def compare_all(
    before: Sequence[Fit],
    after: Sequence[Fit],
    places: dict[str, Int[np.ndarray, " _"]],
    noise_ceiling: Float[np.ndarray, " n_voxels"] | None,
) -> dict[tuple[str, str], Float[np.ndarray, "n_before n_after"]]:
    """Compute every measure of rewiring for all pairs of fits, by (place, measure).

    Means are over the voxels in `places`. Weighted means are named ``<measure>_weighted``.
    """
    tables: dict[tuple[str, str], Float[np.ndarray, "n_before n_after"]] = {}
    for row, first in enumerate(before):
        for column, second in enumerate(after):
            measures = rewiring_measures(first.mapping, second.mapping)
            found = summarise_places(measures, places, noise_ceiling)
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
    """Hold rewiring against the floor: raw, null, and excess with its interval."""
    values: dict[str, float] = {}
    for (place, measure), distances in raw.items():
        name = f"rewiring/{place}/{measure}"
        tail = describe(name).tail
        if tail is None:
            values[name] = float(distances.mean())
            continue
        found = noise_floor(distances[:, 0], between[place, measure], tail)
        values |= {
            name: found.raw,
            f"{name}_null": found.null,
            f"{name}_excess": found.excess,
            f"{name}_excess_low": found.low,
            f"{name}_excess_high": found.high,
        }
    return values
