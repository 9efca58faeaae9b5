"""Draw what regions read of images, and map the voxels that read alike.

    palimpsest readout runs/<study>/<run>
    palimpsest readout runs/<study>/<run> --step 0 --roi V1 --roi FFC --image cat.jpg

Figures go to ``figures/`` in the run's folder, or in a subject's (``--subject``). Regions named by ``--roi``
are also drawn layer by layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from harness.backbones import Backbone
from harness.brains import (
    Brain,
    Roi,
    load_brain,
)
from harness.finetuning import read_backbone
from harness.mappings import (
    Mapping,
    load_mapping,
    load_split,
)
from harness.measures import (
    N_CLUSTERS,
    Reader,
    leading_directions,
    open_reader,
    project_tokens,
)
from harness.plot import (
    MOST_IMAGES,
    RoiReading,
    draw_clusters,
    draw_layers,
    draw_readout,
    label_voxels,
    save_png,
)
from harness.runs import (
    choose_step,
    choose_subject,
    figure_file,
    list_subjects,
    mapping_folder,
    read_run_config,
    split_file,
)
from harness.storage import (
    InputError,
    decode_image,
    unknown_name,
)
from harness.tokens import (
    LayerTokens,
    extract_tokens,
)

N_STIMULI = 8  # held-out stimuli to draw if no images are given
CLUSTERS = range(2, 61)  # more cannot be told apart


def write_readout(
    run: Path,
    step: int | None = None,
    rois: Sequence[str] = (),
    images: Sequence[Path] = (),
    n_clusters: int = N_CLUSTERS,
    subject: str | None = None,
) -> list[Path]:
    """Draw what a snapshot's mapping reads; returns the files written.

    Parameters
    ----------
    run : Path
        Folder of a tracked run.
    step : int, optional
        Step of the snapshot; by default the last.
    rois : sequence of str
        Names of regions, also drawn layer by layer; by default all, mixed over layers only.
    images : sequence of Path
        Image files; by default the first held-out stimuli of the brain.
    n_clusters : int
        Clusters of voxels, in the colours of the step-0 clusters that share most voxels.
    subject : str, optional
        Label of one of several subjects; by default the first.

    Raises
    ------
    InputError
        For an unknown run, subject, step, region or image, a mapping without channels, or one stored without
        its learned parameters.
    """
    if n_clusters not in CLUSTERS:
        raise InputError(f"--clusters: found {n_clusters}, expected {CLUSTERS[0]} to {CLUSTERS[-1]}")
    if len(images) > MOST_IMAGES:
        raise InputError(f"--image: found {len(images)}, expected at most {MOST_IMAGES} in a figure")
    pictures = [decode_image(path) for path in images]
    config = read_run_config(run)
    chosen_subject = choose_subject(list_subjects(config.brain, run), subject)
    own = chosen_subject.folder
    step = choose_step(run, chosen_subject, step)
    folder = mapping_folder(own, step)
    mapping = load_mapping(folder, with_learned=True)
    reader = open_reader(mapping, folder)
    brain = load_brain(chosen_subject.brain)
    chosen = _choose_rois(brain, rois)
    if not pictures:
        held_out = load_split(split_file(own)).held_out[:N_STIMULI]
        pictures = [brain.stimuli[int(index)] for index in held_out]
    backbone = read_backbone(config, run, step)
    # on the finest grid, whatever the mapping was fitted on
    tokens = extract_tokens(backbone, pictures, None, config.probes.batch_size)
    shown = as_seen(backbone, pictures)
    readings = [read_roi(roi, mapping, reader, tokens) for roi in chosen]
    of = f"{config.backbone.name}, step {step:,} of fine-tuning on {config.task.name}"
    of += "" if chosen_subject.label is None else f", {chosen_subject.label}"
    written = [figure_file(own, "readout", step)]
    save_png(draw_readout(shown, readings, f"What regions read of images: {of}"), written[0])
    for reading in readings if rois else []:
        title = f"What {reading.name} reads of images, layer by layer: {of}"
        written.append(figure_file(own, f"readout-{reading.name}", step))
        save_png(draw_layers(shown, reading, mapping.layers, title), written[-1])
    step_0 = load_mapping(mapping_folder(own, 0))
    clusters = label_voxels([step_0, mapping], n_clusters, config.seed)[-1]
    written.append(figure_file(own, "clusters", step))
    title = f"Which voxels read alike: {of}"
    save_png(draw_clusters(brain, _choose_rois(brain, ()), clusters, title, step > 0), written[-1])
    return written


def read_roi(roi: Roi, mapping: Mapping, reader: Reader, tokens: LayerTokens) -> RoiReading:
    """Project the tokens of images to what one region's voxels read."""
    assert mapping.weights is not None  # else there would be no reader
    directions = leading_directions(mapping.weights[roi.voxels])
    layer = mapping.layer[roi.voxels].mean(axis=0)
    return RoiReading(
        name=roi.name,
        projection=project_tokens(tokens, reader, directions, layer),
        layer=layer,
        scale=None if mapping.scale is None else float(mapping.scale[roi.voxels].mean()),
        share=directions.share,
    )


def _choose_rois(brain: Brain, names: Sequence[str]) -> list[Roi]:
    """Return the named regions, or all, in the order of the hierarchy; unranked ones last."""
    known = [roi.name for roi in brain.rois]
    for name in names:
        if name not in known:
            raise unknown_name("region", name, known)
    chosen = [roi for roi in brain.rois if not names or roi.name in names]
    return sorted(chosen, key=lambda roi: np.inf if roi.rank is None else roi.rank)


def as_seen(
    backbone: Backbone, images: Sequence[Image.Image]
) -> Float[np.ndarray, "n_images height width 3"]:
    """Return images as the network sees them, resized and cropped, as RGB in 0 to 1."""
    inputs = backbone.preprocessing(images)
    mean, std = (
        torch.tensor(part)[:, None, None]
        for part in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )
    return (inputs * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()
