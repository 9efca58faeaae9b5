"""What may foretell repair, unit by unit, from what tracking has left in a run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from harness.backbones import Backbone
from harness.config import Config
from harness.measures import (
    PREDICTORS,
    added_drift,
    average_gradients,
    split_name,
    weight_distance,
)
from harness.runs import (
    Brains,
    read_finished_rows,
    read_probes,
)
from harness.tracking.evidence import EvidenceFiles
from harness.tracking.graft_units import name_units


def gather_predictors(
    config: Config, run: Path, brains: Brains, pretrained: Backbone, tuned: Backbone, last: int
) -> dict[str, dict[str, float]]:
    """Gather every predictor of repair that a run's folder allows, by unit.

    Parameters
    ----------
    config : Config
    run : Path
        A finished run.
    brains : Brains
    pretrained, tuned : Backbone
        At the first and last snapshot, adapters merged.
    last : int
        Step of the last snapshot.

    Returns
    -------
    dict of predictor to dict of unit to float
        In the order of `PREDICTORS`. The map is absent if no region has evidence per layer or an earlier
        version tracked the run, gradient shares if one fine-tuned it.
    """
    units = name_units(pretrained)
    found = {
        "map": _read_map(config, brains, last),
        "weight_distance": _measure_weights(pretrained, tuned, units),
        **_read_drift(run, pretrained.layers, last),
        "gradient_share": _read_gradients(run, pretrained.parameter_layers(), units),
    }
    return {name: found[name] for name in PREDICTORS if found.get(name)}


def _read_map(config: Config, brains: Brains, last: int) -> dict[str, float]:
    """The map of rewiring, mean over subjects."""
    each = []
    for subject in brains.subjects:
        files = EvidenceFiles(subject, config.evidence, config.seed)
        # runs of earlier versions have none
        if not (files.has(0) and files.has(last)):
            continue
        changed = files.changed_shares(last, brains.load(subject).noise_ceiling)
        if changed:
            each.append(changed)
    return {layer: float(np.mean([one[layer] for one in each])) for layer in each[0]} if each else {}


def _measure_weights(pretrained: Backbone, tuned: Backbone, units: Mapping[str, str]) -> dict[str, float]:
    before, after = (
        {name: part.detach().cpu().float().numpy() for name, part in one.encoder.named_parameters()}
        for one in (pretrained, tuned)
    )
    found = weight_distance(before, after, {name: unit for name, unit in units.items() if name in before})
    return {
        unit: one["weight_distance_relative"]
        for unit, one in found.items()
        if "weight_distance_relative" in one
    }


def _read_drift(run: Path, layers: Sequence[str], last: int) -> dict[str, dict[str, float]]:
    drift = read_probes(run, last).get("drift", {})
    if not all("cka_unbiased" in drift.get(layer, {}) for layer in layers):
        return {}
    lost = [1 - drift[layer]["cka_unbiased"] for layer in layers]
    return {
        "cka_lost": dict(zip(layers, lost, strict=True)),
        "cka_added": dict(zip(layers, added_drift(lost), strict=True)),
    }


def _read_gradients(run: Path, blocks: Mapping[str, str], units: Mapping[str, str]) -> dict[str, float]:
    """Gradient shares of units: the sums over their blocks, as `Backbone.parameter_layers` names them."""
    shares: dict[int, dict[str, float]] = {}
    for row in read_finished_rows(run):
        parts = split_name(row["name"])
        if parts.stage == "drift" and parts.measure == "grad_share" and not parts.interpolated:
            shares.setdefault(row["step"], {})[parts.place] = row["value"]
    found: dict[str, float] = {}
    unit_of = {block: units[name] for name, block in blocks.items()}
    for block, share in average_gradients(shares).items():
        if block in unit_of:
            found[unit_of[block]] = found.get(unit_of[block], 0.0) + share
    return found
