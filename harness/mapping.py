"""A fitted mapping from layer tokens to voxels: where every voxel reads, and how it is kept on disk."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors.numpy import save_file

from harness.errors import InputError
from harness.files import read_arrays, read_json, write_atomically, write_json


@dataclass(frozen=True)
class Mapping:
    """A fitted mapping: where every voxel reads, and how well that predicts. All arrays are float32.

    Attributes
    ----------
    layers : tuple of str
        Names, from input to output.
    space : float array [n_voxels, 2], -1 to 1
        x along the image's width, y along its height.
    layer : float array [n_voxels, n_layers]
        A distribution over layers.
    scale : float array [n_voxels], 0 to 1
        Share of the global token.
    weights : float array [n_voxels, n_channels]
        Weights of the bottleneck's channels. The bottleneck's basis is arbitrary and differs between
        fits: only what does not depend on it (spans, clusters of voxels) can be compared.
    bias : float array [n_voxels], in units of the response
    r2 : float array [n_voxels], at most 1
        1 - SSE/SST on held-out stimuli; 0 for voxels that do not vary.
    correlation : float array [n_voxels], -1 to 1
        Pearson correlation on held-out stimuli; 0 where undefined.
    steps : int
        Optimizer steps of the fit.
    """

    layers: tuple[str, ...]
    space: Float[np.ndarray, "n_voxels 2"]
    layer: Float[np.ndarray, "n_voxels n_layers"]
    scale: Float[np.ndarray, " n_voxels"]
    weights: Float[np.ndarray, "n_voxels n_channels"]
    bias: Float[np.ndarray, " n_voxels"]
    r2: Float[np.ndarray, " n_voxels"]
    correlation: Float[np.ndarray, " n_voxels"]
    steps: int


ARRAYS = tuple(f.name for f in fields(Mapping) if f.name not in ("layers", "steps"))


def save_mapping(mapping: Mapping, folder: Path) -> None:
    """Write ``mapping.safetensors`` and ``mapping.json`` to a folder, which appears whole or not at all."""
    arrays = {name: np.ascontiguousarray(getattr(mapping, name)) for name in ARRAYS}
    with write_atomically(folder) as temporary:
        temporary.mkdir()
        save_file(arrays, temporary / "mapping.safetensors")
        write_json(temporary / "mapping.json", {"layers": list(mapping.layers), "steps": mapping.steps})


def load_mapping(folder: Path) -> Mapping:
    """Read a mapping; `InputError` names the file that is missing, broken or incomplete."""
    description = Path(folder) / "mapping.json"
    content = read_json(description)
    try:
        layers, steps = tuple(str(name) for name in content["layers"]), int(content["steps"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{description}: expected 'layers' and 'steps', found {content!r:.80}") from None
    path = Path(folder) / "mapping.safetensors"
    arrays = read_arrays(path)
    if set(arrays) != set(ARRAYS):
        raise InputError(
            f"{path}: expected the arrays {', '.join(ARRAYS)}, found {', '.join(sorted(arrays))}"
        )
    n_voxels = len(arrays["bias"])
    shapes: dict[str, tuple[int, ...]] = {name: (n_voxels,) for name in ARRAYS}
    shapes["space"], shapes["layer"] = (n_voxels, 2), (n_voxels, len(layers))
    shapes["weights"] = (n_voxels, arrays["weights"].shape[-1])
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise InputError(f"{path}: {name} is {arrays[name].shape}, expected {shape}")
    return Mapping(layers=layers, steps=steps, **arrays)
