"""Brains whose rewiring is known: planted wiring on real tokens, and the simulated subject with fresh noise.

Scenes and the subjects' pictures run through a mini backbone once; all replicates read the tokens from a work
folder. A replicate draws its own stimuli, wiring, weights and noise from its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness.backbones.load import load_backbone
from harness.brains.brain import (
    Brain,
    Pictures,
)
from harness.brains.cortex import draw_smooth_fields
from harness.brains.load import (
    load_brain,
    load_truth,
)
from harness.config.compose import load_config
from harness.mappings.factortopy.sampling import read_tokens
from harness.mappings.layer_evidence import (
    PooledTokens,
    pool_tokens,
)
from harness.tokens.extraction import (
    LayerTokens,
    iterate_tokens,
)
from harness.tokens.frame import measure_frame
from tasks.shapes import (
    render_scenes,
    sample_scenes,
)

WORLD = 77  # seed of the scenes; the backbones were trained on others
N_SCENES = 3200
N_SUBJECTS, N_PICTURES = 4, 1200
N_PLANTED = 8  # channels that the planted wiring reads per layer
SCALES = (0.1, 0.5)  # possible shares of the global token
SMOOTHNESS = 15.0  # of places and weights along the cortex, mm


def _load_pool(work: Path, backbone: str) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of all scenes, float16: local [n_images, n_layers, n_channels, height, width], and global."""
    files = [work / f"{backbone}_{part}.npy" for part in ("local", "global")]
    if not all(file.exists() for file in files):
        loaded = load_backbone(load_config([f"backbone={backbone}"]).backbone)
        scenes = Pictures(render_scenes(sample_scenes(WORLD, range(N_SCENES))))
        local, global_ = [], []
        for _, part in iterate_tokens(loaded, scenes, range(N_SCENES), None, 128):
            local.append(torch.stack(part.local, dim=1).half())
            global_.append(torch.stack(part.global_, dim=1).half())
        for file, parts in zip(files, (local, global_), strict=True):
            np.save(file, torch.cat(parts).numpy())
    return np.load(files[0], mmap_mode="r"), np.load(files[1], mmap_mode="r")


@cache
def _load_cortex(subject: int, n_voxels: int) -> Brain:
    return load_brain(
        load_config([f"brain.seed={100 + subject}", f"brain.n_voxels={n_voxels}", "brain.n_stimuli=20"]).brain
    )


@dataclass(frozen=True)
class Wired:
    """A brain with noise-free responses, and the tokens of its stimuli.

    Attributes
    ----------
    pooled : PooledTokens
    signal : float tensor [n_stimuli, n_voxels], mean 0, variance 1
    ceiling : float tensor [n_voxels]
        Share of the responses' variance that is signal.
    area : int array [n_voxels]
        Index of each voxel's area.
    names, ranks : lists, one per area
    """

    pooled: PooledTokens
    signal: Float[Tensor, "n_stimuli n_voxels"]
    ceiling: Float[Tensor, " n_voxels"]
    area: Int[np.ndarray, " n_voxels"]
    names: list[str]
    ranks: list[float]

    def respond(
        self,
        noise: Float[Tensor, "n_stimuli n_voxels"],
        signal: Float[Tensor, "n_stimuli n_voxels"] | None = None,
    ) -> Float[Tensor, "n_stimuli n_voxels"]:
        """Add noise of variance 1 to the signal, so that the ceiling is reached."""
        return (
            self.ceiling.sqrt() * (self.signal if signal is None else signal)
            + (1 - self.ceiling).sqrt() * noise
        )


class Planted:
    """Responses that FactorTopy's formula makes of real tokens, with one layer per area.

    Parameters
    ----------
    work : Path
        Folder of the tokens.
    backbone : str
    seed : int
        Even ones wire areas by their rank in the hierarchy, odd ones at random.
    n_stimuli, n_voxels : int
    ceiling : float

    Attributes
    ----------
    brain : Brain
        Where the voxels and areas lie; its responses mean nothing.
    tokens : LayerTokens
        Of all stimuli, in the frame that the wiring reads.
    layer_of_area : int array, one per area
    wired : Wired
    """

    def __init__(
        self, work: Path, backbone: str, seed: int, n_stimuli: int, n_voxels: int, ceiling: float
    ) -> None:
        rng = np.random.default_rng((seed, 11))
        self.brain = brain = _load_cortex(seed % N_SUBJECTS, n_voxels)
        local, global_ = _load_pool(work, backbone)
        rows = np.sort(rng.choice(len(local), n_stimuli, replace=False))
        # the tokens as an untouched network gives them, scaled like those that a mapping is fitted to
        raw = [
            torch.from_numpy(np.asarray(part[rows], dtype=np.float32)).unbind(1) for part in (local, global_)
        ]
        names = tuple(f"block{place}" for place in range(local.shape[1]))
        tokens = LayerTokens(tuple(raw[0]), tuple(raw[1]), names)
        self.tokens = measure_frame(tokens).apply(tokens)
        self.n_layers = len(names)
        areas = brain.rois
        area = np.zeros(n_voxels, dtype=int)
        for index, roi in enumerate(areas):
            area[roi.voxels] = index
        ranks = [float(roi.rank or 0) for roi in areas]
        share = (np.array(ranks) - 1) / (max(ranks) - 1)
        by_rank = np.round(share * (self.n_layers - 1)).astype(int)
        self.layer_of_area = rng.integers(0, self.n_layers - 2, len(areas)) if seed % 2 else by_rank
        fields = draw_smooth_fields(brain.coords, brain.coords, 2 + N_PLANTED, SMOOTHNESS, rng)
        self._space = torch.from_numpy(np.tanh(0.6 * fields[:, :2]).astype(np.float32))
        self._weights = torch.from_numpy(fields[:, 2:].astype(np.float32))
        self._scale = torch.from_numpy(rng.choice(SCALES, len(areas))[area].astype(np.float32))
        generator = torch.Generator().manual_seed(seed)
        self._bottlenecks = [
            [torch.randn(N_PLANTED, part.shape[1], generator=generator) for part in self.tokens.global_]
            for _ in range(2)
        ]
        self.wired = Wired(
            pool_tokens(self.tokens, np.arange(n_stimuli), pool=3),
            self.read(self.layer_of_area[area]),
            torch.full((n_voxels,), ceiling),
            area,
            [roi.name for roi in areas],
            ranks,
        )

    def read(self, layer: Int[np.ndarray, " n_voxels"]) -> Float[Tensor, "n_stimuli n_voxels"]:
        """Compute the noise-free responses if every voxel reads from a given layer."""
        local = [
            tokens.permute(0, 2, 3, 1) @ bottleneck.T
            for tokens, bottleneck in zip(self.tokens.local, self._bottlenecks[0], strict=True)
        ]
        global_ = [
            tokens @ bottleneck.T
            for tokens, bottleneck in zip(self.tokens.global_, self._bottlenecks[1], strict=True)
        ]
        chosen = torch.eye(self.n_layers)[torch.from_numpy(layer)]
        return _unit(read_tokens(local, global_, self._space, chosen, self._scale, self._weights))

    def shifted(self, areas: Sequence[int], by: int) -> Float[Tensor, "n_stimuli n_voxels"]:
        """Compute the responses if some areas read `by` layers deeper, or shallower where there is none."""
        return self.read(self.shifted_layers(areas, by)[self.wired.area])

    def shifted_layers(self, areas: Sequence[int], by: int) -> Int[np.ndarray, " n_areas"]:
        """Layer that every area reads after `shifted`."""
        layer = self.layer_of_area.copy()
        for area in areas:
            deeper = layer[area] + by
            layer[area] = deeper if deeper < self.n_layers else layer[area] - by
        return layer


def add_noise(tokens: LayerTokens, generator: torch.Generator) -> LayerTokens:
    """Add independent noise to every token, with the standard deviation of its channel."""

    def noisy(layer: Tensor) -> Tensor:
        others = [axis for axis in range(layer.ndim) if axis != 1]
        spread = layer.std(others, correction=0, keepdim=True)
        return layer + spread * torch.randn(layer.shape, generator=generator)

    local, global_ = (tuple(map(noisy, part)) for part in (tokens.local, tokens.global_))
    return LayerTokens(local, global_, tokens.layers)


def load_simulated(work: Path, backbone: str, seed: int, n_stimuli: int, n_voxels: int) -> Wired:
    """Draw stimuli of a simulated subject, whose signal owes nothing to the backbone; noise comes later."""
    subject = seed % N_SUBJECTS
    file = work / f"{backbone}_subject{subject}_{n_voxels}.pt"
    if not file.exists():
        config = load_config(
            [
                f"backbone={backbone}",
                f"brain.seed={100 + subject}",
                f"brain.n_voxels={n_voxels}",
                f"brain.n_stimuli={N_PICTURES}",
            ]
        )
        brain, truth = load_brain(config.brain), load_truth(config.brain)
        parts = iterate_tokens(load_backbone(config.backbone), brain.stimuli, range(N_PICTURES), None, 128)
        local, global_ = [], []
        for _, part in parts:
            local.append(part.local)
            global_.append(part.global_)
        tokens = LayerTokens(
            tuple(map(torch.cat, zip(*local, strict=True))),
            tuple(map(torch.cat, zip(*global_, strict=True))),
            part.layers,
        )
        pooled = pool_tokens(tokens, np.arange(N_PICTURES), pool=3)
        area = np.zeros(n_voxels, dtype=int)
        for index, roi in enumerate(brain.rois):
            area[roi.voxels] = index
        saved = {
            "features": list(pooled.features),
            "spread": list(pooled.token_spread),
            "signal": torch.from_numpy(truth.signal),
            "ceiling": torch.from_numpy(truth.noise_ceiling),
            "area": torch.from_numpy(area),
            "names": [roi.name for roi in brain.rois],
            "ranks": [float(roi.rank or 0) for roi in brain.rois],
        }
        torch.save(saved, file)
    kept = torch.load(file, weights_only=True, mmap=True)
    rows = np.sort(np.random.default_rng((seed, 12)).choice(N_PICTURES, n_stimuli, replace=False))
    chosen = torch.from_numpy(rows)
    layers = tuple(f"block{place}" for place in range(len(kept["features"])))
    pooled = PooledTokens(tuple(layer[chosen] for layer in kept["features"]), tuple(kept["spread"]), layers)
    return Wired(
        pooled,
        _unit(kept["signal"][chosen]),
        kept["ceiling"].clone(),
        kept["area"].numpy(),
        kept["names"],
        kept["ranks"],
    )


def _unit(signal: Float[Tensor, "n_stimuli n_voxels"]) -> Float[Tensor, "n_stimuli n_voxels"]:
    deviation = signal.std(dim=0, correction=0)
    return (signal - signal.mean(dim=0)) / torch.where(deviation > 0, deviation, 1.0)
