"""How well RSA finds the layer that a region reads, and whether its noise ceiling is right.

    OMP_NUM_THREADS=1 python benchmarks/rsa_layers.py --work WORK --output benchmarks/results/rsa_layers

On planted brains (`known_rewiring.py`), whose areas read one known layer each: RSA's best layer beside that
of leave-one-out ridge regressions, by two distances and two ways to compare them; the estimated noise ceiling
beside the correlation that the noise-free responses reach; and the agreement of RSA with the shares of layers
that ridge gives, of the same brain and of another brain with areas wired otherwise.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from known_rewiring import Planted
from machine import describe_machine, write_figures
from matplotlib.figure import Figure
from rewiring_validity import CEILING, Replicate
from rsatoolbox.data.dataset import Dataset
from rsatoolbox.rdm.calc import calc_rdm
from rsatoolbox.rdm.compare import compare
from rsatoolbox.rdm.rdms import concat
from sklearn.preprocessing import scale

from harness.mappings import stacked_weights
from harness.measures import (
    compare_geometry,
    geometry_ceilings,
    measure_dissimilarities,
    name_agreement,
    name_geometry,
)

BACKBONES = ("mini_clip", "mini_supervised")
DISTANCES = {"squared Euclidean": "euclidean", "1 − correlation": "correlation"}
COMPARISONS = {"Pearson": "corr", "Spearman": "spearman"}


def judge_brain(work: Path, backbone: str, seed: int, stimuli: int, voxels: int) -> dict[str, Any]:
    """Judge one brain's regions by every method."""
    planted = Planted(work, backbone, seed, stimuli, voxels, CEILING)
    brain = Replicate(planted.wired, planted, seed)
    features = [layer.double().numpy() for layer in planted.wired.pooled.features]
    responses = brain.responses.double().numpy()
    truth = [int(planted.layer_of_area[area]) for area in brain.kept]
    evidence = brain.controls.before
    best = {"ridge": evidence.r2.argmax(axis=1)}
    layers = [scale(layer) for layer in features]
    patterns = [scale(responses[:, region.voxels]) for region in brain.regions]
    for distance, method in DISTANCES.items():
        of_layers = concat([calc_rdm(Dataset(each), method=method) for each in layers])
        of_regions = concat([calc_rdm(Dataset(each), method=method) for each in patterns])
        for comparison, name in COMPARISONS.items():
            found = np.asarray(compare(of_regions, of_layers, method=name))
            best[f"RSA, {distance}, {comparison}"] = found.argmax(axis=1)
    correlations = compare_geometry(features, responses, brain.regions)
    assert (correlations.argmax(axis=1) == best["RSA, squared Euclidean, Pearson"]).all()
    ceiling = np.full(voxels, CEILING)
    signal = planted.wired.signal.double().numpy()
    true = [
        np.corrcoef(
            [
                measure_dissimilarities([each[:, region.voxels]]).dissimilarities[0]
                for each in (signal, responses)
            ]
        )[0, 1]
        for region in brain.regions
    ]
    names = [region.name for region in brain.regions]
    shares = np.stack([stacked_weights(cross) for cross in evidence.cross])
    return {
        "seed": seed,
        "truth": truth,
        "best": {method: [int(each) for each in found] for method, found in best.items()},
        "ceiling": geometry_ceilings(responses, ceiling, brain.regions).tolist(),
        "reached": [float(each) for each in true],
        "n_voxels": [len(region.voxels) for region in brain.regions],
        "rows": name_geometry(correlations, None, names, planted.wired.pooled.layers)
        | name_shares(names, shares, planted.wired.pooled.layers),
    }


def name_shares(places: list[str], shares: np.ndarray, layers: tuple[str, ...]) -> dict[str, float]:
    """Name shares of layers as those of selectors are."""
    depth = np.linspace(0, 1, len(layers))
    rows = {}
    for place, share in zip(places, shares, strict=True):
        rows |= {
            f"selectors/{place}/layer/{name}": float(each) for name, each in zip(layers, share, strict=True)
        }
        rows[f"selectors/{place}/expected_depth"] = float(share @ depth)
    return rows


def agree(geometry: dict[str, float], shares: dict[str, float]) -> dict[str, float]:
    """Agreement of one brain's RSA with the shares of another, or its own."""
    of_geometry = {name: value for name, value in geometry.items() if name.startswith("rsa/")}
    return name_agreement(
        of_geometry | {name: value for name, value in shares.items() if name.startswith("selectors/")}
    )


def summarise(brains: list[dict[str, Any]]) -> dict[str, Any]:
    """Count over the brains of one backbone."""
    errors = {
        method: np.concatenate([np.array(one["best"][method]) - one["truth"] for one in brains])
        for method in brains[0]["best"]
    }
    ceiling, reached = (np.concatenate([one[key] for one in brains]) for key in ("ceiling", "reached"))
    # odd seeds wire areas at random: of two such brains, one says nothing about the other
    wired_at_random = [one for one in brains if one["seed"] % 2]
    others = [*wired_at_random[1:], *wired_at_random[:1]]
    own = [agree(one["rows"], one["rows"]) for one in brains]
    mixed = [agree(one["rows"], other["rows"]) for one, other in zip(wired_at_random, others, strict=True)]
    return {
        "n_brains": len(brains),
        "n_regions": len(ceiling),
        "methods": {
            method: {"right": float((error == 0).mean()), "within_one": float((abs(error) <= 1).mean())}
            for method, error in errors.items()
        },
        "ceiling": {
            "estimated": float(np.nanmean(ceiling)),
            "reached": float(reached.mean()),
            "mean_absolute_error": float(np.nanmean(abs(ceiling - reached))),
            "unknown": int(np.isnan(ceiling).sum()),
        },
        "agreement": {
            kind: {
                measure: [float(np.mean(values)), float(np.std(values, ddof=1))]
                for measure in ("layers_agreement", "regions_agreement")
                for values in [[one[f"rsa/all/{measure}"] for one in found]]
            }
            for kind, found in (("own", own), ("another brain's", mixed))
        },
    }


def draw(found: dict[str, dict[str, Any]], brains: dict[str, list[dict[str, Any]]]) -> Figure:
    """Draw shares of right layers, and estimated ceilings over reached correlations."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, (backbone, counted) in enumerate(found.items()):
        methods = list(counted["methods"])
        shares = [counted["methods"][method]["right"] for method in methods]
        left.barh(np.arange(len(methods)) + 0.4 * place - 0.2, shares, 0.38, label=backbone)
        left.set_yticks(range(len(methods)), methods, fontsize=8)
        reached, ceiling = (
            np.concatenate([one[key] for one in brains[backbone]]) for key in ("reached", "ceiling")
        )
        right.plot(reached, ceiling, ".", markersize=3, label=backbone)
    left.invert_yaxis()
    left.set_xlim(0, 1)
    left.set_xlabel("share of regions with the right best layer")
    left.legend(fontsize=8)
    ends = [right.get_xlim()[0], 1]
    right.plot(ends, ends, ":", color="#777777", linewidth=1)
    right.set_xlabel("correlation that noise-free responses reach")
    right.set_ylabel("estimated noise ceiling of RSA")
    return figure


def main() -> None:
    """Judge brains of both backbones and write counts and a picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of tokens")
    parser.add_argument("--brains", type=int, default=24)
    parser.add_argument("--first-seed", type=int, default=3000)
    parser.add_argument("--stimuli", type=int, default=320)
    parser.add_argument("--voxels", type=int, default=600)
    parser.add_argument("--output", type=Path, help="path without suffix; writes a .json and a .png")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.brains)
    brains = {
        backbone: [
            judge_brain(arguments.work, backbone, seed, arguments.stimuli, arguments.voxels) for seed in seeds
        ]
        for backbone in BACKBONES
    }
    found = {backbone: summarise(own) for backbone, own in brains.items()}
    for backbone, counted in found.items():
        print(backbone, counted)
    if arguments.output:
        settings = {key: getattr(arguments, key) for key in ("brains", "first_seed", "stimuli", "voxels")}
        figures = {"machine": describe_machine(), "settings": settings, "backbones": found}
        write_figures(figures, arguments.output.with_suffix(".json"))
        draw(found, brains).savefig(arguments.output.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
