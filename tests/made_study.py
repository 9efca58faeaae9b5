"""A small study with known selectors, written to disk by the code that writes real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.brains.brain import (
    Brain,
    Roi,
    Surface,
)
from harness.config.compose import (
    load_config,
    to_yaml,
)
from harness.config.run import Config
from harness.mappings.mapping import (
    Mapping,
    save_mapping,
)
from harness.measures.per_image import Hits
from harness.measures.rows import (
    measure_brain,
    name_probes,
)
from harness.runs.journal import Journal
from harness.runs.layout import (
    mapping_folder,
    probes_file,
    run_folder,
)
from harness.runs.subjects import list_subjects
from harness.storage.files import write_json
from harness.tracking.across_subjects import combine_subjects

STEPS = (0, 1, 4, 16, 64, 72)
LAYERS = tuple(f"block-{index}" for index in range(1, 9))


def make_brain(n_rois: int = 3, n_voxels_per_roi: int = 16) -> Brain:
    """Make voxels on a flat strip, one block of columns per region, V1 first."""
    n_voxels, height = n_rois * n_voxels_per_roi, 4
    width = n_voxels // height
    x, y = np.meshgrid(np.arange(width), np.arange(height), indexing="ij")
    corner = (np.arange(width - 1)[:, None] * height + np.arange(height - 1)).ravel()
    faces = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + height], axis=1),
            np.stack([corner + 1, corner + height, corner + height + 1], axis=1),
        ]
    )
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    area = np.repeat(np.arange(n_rois), n_voxels_per_roi)
    names = tuple(f"V{rank}" for rank in range(1, n_rois + 1))
    rois = [Roi(name, np.flatnonzero(area == index), float(index + 1)) for index, name in enumerate(names)]
    coords = np.concatenate([points, np.zeros((n_voxels, 1), np.float32)], axis=1)
    return Brain(
        name="made",
        stimuli=[Image.new("RGB", (8, 8))],
        responses=np.zeros((1, n_voxels), np.float32),
        coords=coords,
        bounding_box=np.stack([coords.min(axis=0), coords.max(axis=0)]),
        hemisphere=np.full(n_voxels, "L"),
        rois=tuple(rois),
        noise_ceiling=np.full(n_voxels, 0.6, np.float32),
        surface=Surface(
            points, faces, np.linspace(0, 1, n_voxels, dtype=np.float32), np.arange(n_voxels), area, names
        ),
        fingerprint="made",
    )


def make_mapping(brain: Brain, order: float, shift: float, seed: int, noise: float = 0.12) -> Mapping:
    """Make a mapping whose depth rises with a region's rank by `order`; `shift` moves it to deeper layers."""
    rng = np.random.default_rng(seed)
    n_voxels = brain.n_voxels
    rank = np.zeros(n_voxels)
    for roi in brain.rois:
        rank[roi.voxels] = roi.rank or 0.0
    share = (rank - rank.min()) / max(np.ptp(rank), 1)
    # one number for all voxels, so that refits differ in the mean too
    depth = 0.5 + order * (share - 0.5) + shift * (1 - 0.6 * share)
    depth = depth + noise * rng.standard_normal(n_voxels) + 0.02 * rng.standard_normal()
    centres = np.linspace(0, 1, len(LAYERS))
    logits = -((centres - depth[:, None]) ** 2) / 0.03
    layer = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights = rng.standard_normal((n_voxels, 6))
    r2 = 0.3 + 0.05 * rng.standard_normal(n_voxels) - 0.3 * abs(shift)
    arrays = {
        "space": rng.uniform(-0.5, 0.5, (n_voxels, 2)),
        "layer": layer / layer.sum(axis=1, keepdims=True),
        "scale": rng.uniform(0.2, 0.8, n_voxels),
        "weights": weights,
        "bias": np.zeros(n_voxels),
        "r2": r2,
        "correlation": np.sqrt(r2.clip(0)),
    }
    return Mapping(
        layers=LAYERS, steps=10, **{name: array.astype(np.float32) for name, array in arrays.items()}
    )


def make_probes(config: Config, progress: float, strength: float) -> dict[str, Any]:
    """Make scores that fall on the probes and rise on the task as `progress` goes from 0 to 1."""
    probe: dict[str, dict[str, float]] = {}
    for index, task in enumerate(config.probes.names):
        before = 0.8 - 0.15 * index
        accuracy = before - strength * progress * (0.1 + 0.1 * index)
        probe[task] = {"linear_accuracy": accuracy, "linear_ece": 0.1, "knn_accuracy": accuracy - 0.1}
        if config.backbone.objective == "contrastive" and task != "counts":
            probe[task] |= {"zero_shot_accuracy": accuracy - 0.2 * progress, "zero_shot_ece": 0.2}
    probe[config.task.name] = {
        "linear_accuracy": 0.7 + 0.25 * progress,
        "linear_ece": 0.05,
        "knn_accuracy": 0.6,
    }
    head = 0.1 + 0.85 * progress
    return {
        "task": {"accuracy": head, "ece": 0.1},
        "probe": probe,
        "images": {
            task: make_images(
                task, config.seed, scores | ({"head_accuracy": head} if task == config.task.name else {})
            )
            for task, scores in probe.items()
        },
    }


def make_images(task: str, seed: int, scores: dict[str, float], n: int = 100) -> dict[str, Any]:
    """Make the record of a task's test images: the first of an order are right, as accuracy says."""
    order = np.random.default_rng(seed).permutation(n)
    right = {
        name.removesuffix("_accuracy"): Hits(order < round(n * value)).encode()
        for name, value in scores.items()
        if name.endswith("_accuracy")
    }
    return {"n": n, "hash": f"{task} {seed}", "right": right}


def write_run(
    overrides: Sequence[str], brain: Brain, steps: Sequence[int] = STEPS, shift: float = 0.3
) -> Path:
    """Write a finished run as tracking leaves it and return its folder; all subjects have the same brain."""
    config = load_config(list(overrides))
    folder = run_folder(config)
    folder.mkdir(parents=True)
    trained = not config.backbone.untrained
    order, strength = (0.6, 1.0) if trained else (0.02, 0.1)
    first = 1000 * config.seed + 100 * len(config.backbone.name)
    progress = {step: np.log1p(step) / np.log1p(max(*steps, 1)) for step in steps}
    probes = {step: make_probes(config, progress[step], strength * (1 + 0.1 * config.seed)) for step in steps}
    measured: dict[str, dict[int, dict[str, float]]] = {}
    for number, subject in enumerate(list_subjects(config.brain, folder)):
        own = first + 10_000 * number
        refits = [make_mapping(brain, order, 0.0, own + 1 + j) for j in range(config.mapping.floor_refits)]
        mappings = {
            step: make_mapping(brain, order, strength * shift * progress[step], own + 50 + step)
            for step in steps
        }
        for step, mapping in mappings.items():
            save_mapping(mapping, mapping_folder(subject.folder, step))
        for refit, mapping in enumerate(refits, 1):
            save_mapping(mapping, mapping_folder(subject.folder, 0, refit))
        measured[subject.label or "all"] = dict(measure_brain(mappings, refits, brain, config.seed))
    for step in steps:
        write_json(probes_file(folder, step), probes[step])
    with Journal(folder / "results.jsonl") as journal:
        for step in steps:
            rows = {label: values[step] for label, values in measured.items()}
            of_brain = combine_subjects(rows) if len(rows) > 1 else rows["all"]
            journal.log(step, name_probes(probes[step], probes[0], config.task.name) | of_brain)
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    write_json(
        folder / "manifest.json",
        {"code_version": "0123456789ab", "packages": {"torch": "2.15.0"}, "python": "3.11.7"},
    )
    write_json(folder / "finished.json", {"steps": list(steps)})
    return folder


def without_surface(brain: Brain) -> Brain:
    """Return the same voxels without a surface or noise ceiling."""
    return replace(brain, surface=None, noise_ceiling=None)
