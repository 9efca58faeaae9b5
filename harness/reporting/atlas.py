"""The atlas: networks that were mapped as they are, in one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.brains import (
    Brain,
    load_brain,
)
from harness.config import BrainConfig
from harness.mappings import load_split
from harness.measures import N_CLUSTERS
from harness.plot import (
    draw_clusters,
    draw_places,
    draw_selector_maps,
    draw_share_maps,
    embed_png,
    label_voxels,
)
from harness.reporting.figures.atlas import (
    draw_hierarchy,
    draw_scores,
)
from harness.reporting.mapped_networks import (
    MappedNetwork,
    SubjectFits,
    find_maps,
    read_fits,
    read_maps,
)
from harness.reporting.page_brains import (
    leave_rows_out,
    order_places,
)
from harness.reporting.page_templates import load_template
from harness.reporting.region_channels import (
    choose_regions,
    choose_stimuli,
    draw_channels,
)
from harness.runs import (
    Subject,
    maps_folder,
    read_run_manifest,
    split_file,
)
from harness.storage import (
    InputError,
    write_atomically,
)

SUMMARY = (
    ("R²", "brain/all/r2", "%.3f", None),
    ("R² / ceiling", "brain/all/r2_normalised", "%.3f", None),
    ("confidence", "selectors/all/confidence", "%.2f", None),
    ("scale", "selectors/all/scale", "%.2f", None),
    ("ρ, voxels", "alignment/all/hierarchy", "%+.2f", "alignment/all/hierarchy_null_sd"),
    ("ρ, regions", "alignment/all/hierarchy_rois", "%+.2f", "alignment/all/hierarchy_rois_null_sd"),
    ("p", "alignment/all/hierarchy_rois_p", "%.3f", None),
    ("slope", "alignment/all/slope", "%+.2f", "alignment/all/slope_null_sd"),
    ("p", "alignment/all/slope_p", "%.3f", None),
    ("b0", "alignment/all/intercept_low", "%.2f", None),
    ("b1", "alignment/all/intercept_high", "%.2f", None),
)
"""Columns of the summary: heading, row of the results, format, row of the standard deviation over refits."""


def write_atlas(folders: Sequence[Path], path: Path | None = None, rois: Sequence[str] = ()) -> Path:
    """Write the atlas of finished maps and return its path.

    Parameters
    ----------
    folders : sequence of Path
        Of maps, or of studies whose maps are all meant.
    path : Path, optional
        By default ``atlas.html`` in the first folder's study.
    rois : sequence of str
        Regions whose channels are drawn; by default some of each level of the hierarchy.

    Raises
    ------
    InputError
        If a folder holds no finished map, a file is missing or broken, or a brain lacks a region.
    """
    found = [map_folder for folder in folders for map_folder in find_maps(folder)]
    networks = read_maps(list(dict.fromkeys(found)))
    if path is None:
        above = found[0].resolve().parent
        path = (above.parent if above == maps_folder(above.parent) else above) / "atlas.html"
    elif path.is_dir():
        raise InputError(f"--out: found the folder {path}, expected a file, such as {path / 'atlas.html'}")
    page = render_atlas(networks, rois)
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def render_atlas(networks: Sequence[MappedNetwork], rois: Sequence[str] = ()) -> str:
    """Render the page as HTML, a part per brain."""
    of_brain: dict[BrainConfig, list[MappedNetwork]] = {}
    for network in networks:
        of_brain.setdefault(network.config.brain, []).append(network)
    manifests = [read_run_manifest(network.folder) for network in networks]
    return load_template("atlas.html").render(
        parts=[_describe_brain(alike, rois) for alike in of_brain.values()],
        summary=SUMMARY,
        n_networks=len(networks),
        code_versions=sorted({manifest["code_version"] for manifest in manifests}),
        simulated=any(network.config.brain.name == "simulated" for network in networks),
    )


def _describe_brain(networks: Sequence[MappedNetwork], rois: Sequence[str]) -> dict[str, Any]:
    """Figures and tables of the networks that were mapped to one brain."""
    brains: dict[BrainConfig, Brain] = {}
    images: list[Image.Image] = []
    fits: dict[tuple[Path, str | None], SubjectFits] = {}
    for network in networks:
        for subject in network.subjects:
            if subject.brain not in brains:
                brain = load_brain(subject.brain)
                images = images or choose_stimuli(brain, networks)
                brains[subject.brain] = _score(brain, subject)
            fits[network.folder, subject.label] = read_fits(subject, brains[subject.brain])
    own = [[fits[network.folder, subject.label] for subject in network.subjects] for network in networks]
    loaded = list(brains.values())
    ranked = {roi.name: roi for brain in loaded for roi in brain.rois if roi.rank is not None}
    order = order_places(loaded)
    spreads = [_spread(each) for each in own]
    ordered = [ranked[name] for name in order if name in ranked]
    depths = [_mean_depth(each) for each in own]
    regions = choose_regions(loaded[0].rois, order, rois)  # before anything is drawn
    return {
        "brains": loaded,
        "networks": networks,
        "scores": embed_png(draw_scores(networks, order, spreads)),
        "hierarchy": embed_png(draw_hierarchy(networks, ordered, depths)) if len(ordered) > 1 else None,
        "channels": draw_channels(networks, images, regions),
        "table": list(tabulate(networks, ["all", *order], spreads)),
        "maps": [
            {"network": network, "label": subject.label, "first": place == 0}
            | draw_network(brains[subject.brain], fits[network.folder, subject.label], network.config.seed)
            for network in networks
            for place, subject in enumerate(network.subjects)
        ],
    }


def tabulate(
    networks: Sequence[MappedNetwork], places: Sequence[str], spreads: Sequence[dict[str, float]]
) -> Iterator[dict[str, Any]]:
    """Yield a row per place: R² of every network, its sd over fits, and its difference to the best."""
    for place in places:
        metric = f"brain/{place}/r2"
        best = max((network.rows[metric] for network in networks if metric in network.rows), default=None)
        cells: list[dict[str, Any]] = []
        for network, spread in zip(networks, spreads, strict=True):
            value = network.rows.get(metric)
            if value is None or best is None:
                cells.append({"value": None})
                continue
            cells.append({"value": value, "sd": spread.get(place), "below": value - best, "metric": metric})
        yield {"place": "Whole brain" if place == "all" else place, "cells": cells}


def draw_network(brain: Brain, fits: SubjectFits, seed: int) -> dict[str, str | None]:
    """Draw the maps of one network and subject, by name; None where the family has no such selector."""
    mapping = fits.mapping
    clusters = None
    if mapping.weights is not None and (mapping.r2 > 0).any():
        (labels,) = label_voxels([mapping], N_CLUSTERS, seed)
        ranked = sorted(brain.rois, key=lambda roi: np.inf if roi.rank is None else roi.rank)
        clusters = embed_png(draw_clusters(brain, ranked, labels, ""), 120)
    places = None if mapping.space is None else embed_png(draw_places(brain, mapping, fits.counted))
    return {
        "selectors": embed_png(draw_selector_maps(brain, mapping)),
        "shares": embed_png(draw_share_maps(brain, mapping), 120),
        "places": places,
        "clusters": clusters,
    }


def _score(brain: Brain, subject: Subject) -> Brain:
    """Return a brain without rows; its noise ceiling is that of the held-out stimuli."""
    split = load_split(split_file(subject.folder), brain.stimulus_ids)
    return leave_rows_out(brain.score_on(split.held_out))


def _spread(fits: Sequence[SubjectFits]) -> dict[str, float]:
    """Standard deviation over fits of every place's R², averaged over subjects first."""
    places = {place for each in fits for place in each.spread}
    return {
        place: float(
            np.std(np.mean([each.spread[place] for each in fits if place in each.spread], axis=0), ddof=1)
        )
        for place in places
    }


def _mean_depth(fits: Sequence[SubjectFits]) -> dict[str, float]:
    """Expected depth of every region, averaged over subjects."""
    names = {name for each in fits for name in each.depth}
    return {name: float(np.mean([each.depth[name] for each in fits if name in each.depth])) for name in names}
