"""A fitted mapping from layer tokens to voxels: where every voxel reads, and how it is kept on disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors.numpy import save_file

from harness.storage import (
    InputError,
    read_arrays,
    read_json,
    unknown_name,
    write_atomically,
    write_json,
)

ARRAYS = ("space", "layer", "scale", "weights", "bias", "r2", "correlation")
"""Names of all arrays that a mapping may have."""

ARRAYS_OF_FAMILY = {
    "factortopy": ARRAYS,
    "free_selectors": ARRAYS,
    "attention": ARRAYS,
    "layer_ridge": ("layer", "r2", "correlation"),
}
"""Names of the arrays that a mapping of a family has; the others are None."""


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """A fitted mapping: where every voxel reads, and how well that predicts. All arrays are float32.

    What a family of mappings does not have (`ARRAYS_OF_FAMILY`) is None.

    Attributes
    ----------
    layers : tuple of str
        Names, from input to output.
    layer : float array [n_voxels, n_layers]
        A distribution over layers.
    space : float array [n_voxels, 2], -1 to 1, or None
        x along the image's width, y along its height.
    scale : float array [n_voxels], 0 to 1, or None
        Share of the global token.
    weights : float array [n_voxels, n_channels] or None
        Weights of the bottleneck's channels. The bottleneck's basis is arbitrary and differs between
        fits: only what does not depend on it (spans, clusters of voxels) can be compared.
    bias : float array [n_voxels], in units of the response, or None
    r2 : float array [n_voxels], at most 1
        1 - SSE/SST on held-out stimuli; 0 for voxels that do not vary.
    correlation : float array [n_voxels], -1 to 1
        Pearson correlation on held-out stimuli; 0 where undefined.
    steps : int
        Optimizer steps of the fit; 0 where it is solved in one.
    family : str
        Name of the family of mappings, as in ``mapping.family``.
    learned : dict of arrays by name, or None
        What else a trained model has learned (``model.*``) and the frame of its tokens (``frame.*``), as of
        `FittedModel.learned`: for warm starts, and to project tokens to the channels.

    Raises
    ------
    InputError
        If the arrays are not those that the family has.
    """

    layers: tuple[str, ...]
    layer: Float[np.ndarray, "n_voxels n_layers"]
    space: Float[np.ndarray, "n_voxels 2"] | None = None
    scale: Float[np.ndarray, " n_voxels"] | None = None
    weights: Float[np.ndarray, "n_voxels n_channels"] | None = None
    bias: Float[np.ndarray, " n_voxels"] | None = None
    r2: Float[np.ndarray, " n_voxels"]
    correlation: Float[np.ndarray, " n_voxels"]
    steps: int
    family: str = "factortopy"
    learned: dict[str, np.ndarray] | None = None

    def __post_init__(self) -> None:
        _check_family("mapping", self.family)
        _check_arrays("mapping", self.family, [name for name in ARRAYS if getattr(self, name) is not None])


def _check_family(place: object, family: str) -> None:
    if family not in ARRAYS_OF_FAMILY:
        raise InputError(f"{place}: {unknown_name('family of mappings', family, ARRAYS_OF_FAMILY)}")


def _check_arrays(place: object, family: str, found: Iterable[str]) -> None:
    expected = ARRAYS_OF_FAMILY[family]
    if set(found) != set(expected):
        names = ", ".join(expected)
        raise InputError(
            f"{place}: expected the arrays {names} of {family}, found {', '.join(sorted(found))}"
        )


def save_mapping(mapping: Mapping, folder: Path) -> None:
    """Write a mapping to a folder, which appears whole or not at all.

    ``mapping.safetensors`` has the arrays of its voxels, ``learned.safetensors`` what else it has learned,
    ``mapping.json`` the rest.
    """
    arrays = {name: np.ascontiguousarray(getattr(mapping, name)) for name in ARRAYS_OF_FAMILY[mapping.family]}
    description = {"family": mapping.family, "layers": list(mapping.layers), "steps": mapping.steps}
    with write_atomically(folder) as temporary:
        temporary.mkdir()
        save_file(arrays, temporary / "mapping.safetensors")
        if mapping.learned is not None:
            learned = {name: np.ascontiguousarray(array) for name, array in mapping.learned.items()}
            save_file(learned, temporary / "learned.safetensors")
        write_json(temporary / "mapping.json", description)


def load_mapping(folder: Path, with_learned: bool = False) -> Mapping:
    """Read a mapping, and what it has learned where that is wanted and was kept.

    Raises
    ------
    InputError
        Names the file that is missing, broken or incomplete.
    """
    description = Path(folder) / "mapping.json"
    content = read_json(description)
    try:
        layers, steps = tuple(str(name) for name in content["layers"]), int(content["steps"])
        # files from before there were families do not name theirs
        family = str(content.get("family", "factortopy"))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{description}: expected 'layers' and 'steps', found {content!r:.80}") from None
    _check_family(description, family)
    path = Path(folder) / "mapping.safetensors"
    arrays = read_arrays(path)
    _check_arrays(path, family, arrays)
    n_voxels = len(arrays["r2"])
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(arrays, (n_voxels,))
    shapes["layer"] = (n_voxels, len(layers))
    if "space" in arrays:
        shapes["space"] = (n_voxels, 2)
    if "weights" in arrays:
        shapes["weights"] = (n_voxels, arrays["weights"].shape[-1])
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise InputError(f"{path}: {name} is {arrays[name].shape}, expected {shape}")
    kept = Path(folder) / "learned.safetensors"
    learned = read_arrays(kept) if with_learned and kept.exists() else None
    return Mapping(layers=layers, steps=steps, family=family, learned=learned, **arrays)
