"""What the regions of a brain read of the same stimuli in several mapped networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from PIL import Image

from harness.backbones import (
    encoder_hash,
    load_backbone,
)
from harness.brains import (
    Brain,
    Roi,
)
from harness.mappings import (
    load_mapping,
    load_split,
)
from harness.measures import open_reader
from harness.plot import (
    ChannelColumn,
    count_pictures,
    draw_channel_grid,
    embed_png,
)
from harness.reporting.mapped_networks import MappedNetwork
from harness.reporting.readout import (
    as_seen,
    read_roi,
)
from harness.runs import (
    mapping_folder,
    read_run_manifest,
    split_file,
)
from harness.storage import (
    InputError,
    unknown_name,
    without_downloads,
)
from harness.tokens import extract_tokens

MOST_REGIONS = 8  # unless they are named


@dataclass(frozen=True)
class RegionChannels:
    """The pictures of networks side by side.

    Attributes
    ----------
    figures : list of str
        Data URLs of PNG images; empty if no network could be drawn.
    missing : list of str
        A line per network that is left out, and why.
    subject : str or None
        Label of the subject, if there are several.
    """

    figures: list[str]
    missing: list[str]
    subject: str | None


def choose_stimuli(brain: Brain, networks: Sequence[MappedNetwork]) -> list[Image.Image]:
    """Choose images to show: the first that no network was fitted on, or else those of the first network.

    Parameters
    ----------
    brain : Brain
        Of the networks' first subject, with its stimuli.
    networks : sequence of MappedNetwork
        On this brain.
    """
    held_out = [
        load_split(split_file(network.subjects[0].folder), brain.stimulus_ids).held_out
        for network in networks
    ]
    rows = reduce(np.intersect1d, held_out)
    rows = rows if len(rows) else held_out[0]
    _, first = np.unique(brain.stimulus_ids[rows], return_index=True)  # repeats of an image have rows
    return [brain.stimuli[int(row)] for row in rows[np.sort(first)][: count_pictures(len(networks))]]


def choose_regions(rois: Sequence[Roi], order: Sequence[str], names: Sequence[str] = ()) -> list[Roi]:
    """Choose the regions to show: the named ones, or `MOST_REGIONS` spread evenly over the hierarchy.

    Parameters
    ----------
    rois : sequence of Roi
        Of the brain.
    order : sequence of str
        Names of regions in order of the hierarchy.
    names : sequence of str
        By default, none is named.

    Raises
    ------
    InputError
        If the brain has no region of a given name.
    """
    known = sorted(rois, key=lambda roi: order.index(roi.name))
    for name in names:
        if name not in {roi.name for roi in known}:
            raise unknown_name("region", name, [roi.name for roi in known])
    if names:
        return [roi for roi in known if roi.name in names]
    return [known[place] for place in _spread(len(known))]


def _spread(n_regions: int) -> list[int]:
    """Return places from the first to the last, evenly apart."""
    return [round(place) for place in np.linspace(0, n_regions - 1, min(n_regions, MOST_REGIONS))]


def draw_channels(
    networks: Sequence[MappedNetwork], images: Sequence[Image.Image], rois: Sequence[Roi]
) -> RegionChannels:
    """Draw what regions read of images in every network whose weights are on this machine.

    Nothing is downloaded. A network without weights, with others than those mapped, or of a family without
    channels is left out.

    Parameters
    ----------
    networks : sequence of MappedNetwork
        On one brain; of several subjects, the first counts.
    images : sequence of PIL images
    rois : sequence of Roi
        Of the first subject's brain.
    """
    columns, missing = [], []
    for network in networks:
        try:
            with without_downloads():
                columns.append(_read_column(network, images, rois))
        except InputError as error:
            missing.append(f"{network.label} is not shown: {error}")
    figures = draw_channel_grid(columns, [roi.name for roi in rois]) if columns and rois else []
    return RegionChannels([embed_png(figure) for figure in figures], missing, networks[0].subjects[0].label)


def _read_column(network: MappedNetwork, images: Sequence[Image.Image], rois: Sequence[Roi]) -> ChannelColumn:
    subject, config = network.subjects[0], network.config
    folder = mapping_folder(subject.folder, 0)
    mapping = load_mapping(folder, with_learned=True)
    reader = open_reader(mapping, folder)
    backbone = load_backbone(config.backbone)
    mapped = read_run_manifest(network.folder).get("fingerprints", {}).get("pretrained_encoder")
    if mapped != encoder_hash(backbone):
        raise InputError(f"{network.folder}: found other weights of {config.backbone.name} than those mapped")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens = extract_tokens(backbone, images, None, config.probes.batch_size, device)
    within = "" if subject.label is None else f"{subject.label}/"
    return ChannelColumn(
        network.label,
        network.colour,
        as_seen(backbone, images),
        {roi.name: read_roi(roi, mapping, reader, tokens) for roi in rois},
        {
            roi.name: (
                network.rows.get(f"brain/{roi.name}/{within}r2"),
                network.rows.get(f"brain/{roi.name}/{within}r2_normalised"),
            )
            for roi in rois
        },
    )
