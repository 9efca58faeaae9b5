"""Noise ceilings of RSA between the subjects of a run, on the pictures that all of them saw."""

from __future__ import annotations

import numpy as np

from harness.brains import Brain
from harness.config import Config
from harness.measures import (
    measure_dissimilarities,
    subject_ceilings,
)
from harness.runs import Brains
from harness.tracking.evidence import FEWEST, EvidenceFiles


def name_subject_ceilings(config: Config, brains: Brains) -> dict[str, float]:
    """Name the bounds of every region that two or more subjects have.

    Regions and voxels are those of the subjects' evidence per layer. Empty with one subject, or with fewer
    than `FEWEST` pictures that are known to be shared by all.
    """
    if len(brains.subjects) < 2:
        return {}
    loaded = [brains.load(subject) for subject in brains.subjects]
    pictures = _shared_pictures(loaded)
    if len(pictures) < FEWEST:
        return {}
    if len(pictures) > config.evidence.n_stimuli:
        generator = np.random.default_rng(config.seed)
        pictures = np.sort(generator.choice(pictures, config.evidence.n_stimuli, replace=False))
    found: dict[str, list[np.ndarray]] = {}
    for subject, brain in zip(brains.subjects, loaded, strict=True):
        responses = _average(brain, pictures)
        for region in EvidenceFiles(subject, config.evidence, config.seed).regions():
            found.setdefault(region.name, []).append(responses[:, region.voxels])
    values: dict[str, float] = {}
    for place, patterns in found.items():
        geometries = [measure_dissimilarities([each]) for each in patterns]
        # a region that is silent on these pictures has no geometry
        if len(patterns) > 1 and all(np.ptp(each.dissimilarities) > 0 for each in geometries):
            lower, upper = subject_ceilings(geometries)
            values[f"rsa/{place}/group_ceiling_lower"] = float(lower)
            values[f"rsa/{place}/group_ceiling_upper"] = float(upper)
    return values


def _shared_pictures(brains: list[Brain]) -> np.ndarray:
    """Ids of the pictures that every subject is known to have seen."""
    common = None
    for brain in brains:
        if brain.shared is None:
            return np.array([])
        ids = np.unique(brain.stimulus_ids[brain.shared])
        common = ids if common is None else np.intersect1d(common, ids)
    assert common is not None
    return common


def _average(brain: Brain, pictures: np.ndarray) -> np.ndarray:
    """Responses to some pictures, averaged over the rows that show them: [n_pictures, n_voxels]."""
    return np.stack([brain.responses[brain.stimulus_ids == picture].mean(axis=0) for picture in pictures])
