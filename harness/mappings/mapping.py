"""A fitted mapping from layer tokens to voxels, and its files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from harness.mappings.families import (
    ARRAYS,
    FAMILIES,
)
from harness.storage import (
    InputError,
    read_arrays,
    read_record,
    unknown_name,
    write_arrays,
    write_atomically,
    write_record,
)


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """A fitted mapping: where every voxel reads, and how well that predicts. All arrays are float32.

    Arrays that the family does not have (`harness.mappings.families`) are None.

    Attributes
    ----------
    layers : tuple of str
        Layer names, from input to output.
    layer : float array [n_voxels, n_layers]
        A distribution over layers.
    space : float array [n_voxels, 2], -1 to 1, or None
        x along the image's width, y along its height.
    scale : float array [n_voxels], 0 to 1, or None
        Share of the global token.
    weights : float array [n_voxels, n_channels] or None
        Weights of the bottleneck's channels. The bottleneck's basis is arbitrary and differs between
        fits: compare only quantities that do not depend on it (spans, clusters of voxels).
    bias : float array [n_voxels], in units of the response, or None
    r2 : float array [n_voxels], at most 1
        1 - SSE/SST on held-out stimuli; 0 for constant voxels.
    correlation : float array [n_voxels], -1 to 1
        Pearson correlation on held-out stimuli; 0 where undefined.
    steps : int
        Optimizer steps of the fit; 0 for closed-form fits.
    family : str
        Name of its family, as in ``mapping.family``.
    learned : dict of arrays by name, or None
        A trained model's other parameters (``model.*``) and the frame of its tokens (``frame.*``), from
        `FittedModel.learned`: for warm starts, and to project tokens to the channels.

    Raises
    ------
    InputError
        If the arrays are not the family's.
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
    if family not in FAMILIES:
        raise InputError(f"{place}: {unknown_name('family of mappings', family, FAMILIES)}")


def _check_arrays(place: object, family: str, found: Iterable[str]) -> None:
    expected = FAMILIES[family].arrays
    if set(found) != set(expected):
        names = ", ".join(expected)
        raise InputError(
            f"{place}: expected the arrays {names} of {family}, found {', '.join(sorted(found))}"
        )


def _place(folder: Path) -> str:
    """Place in a run of a folder with a run's names; a user may copy others where they like."""
    return folder.name if folder.name.startswith("step-") else ""


def save_mapping(mapping: Mapping, folder: Path) -> None:
    """Write a mapping to a folder, which appears whole or not at all.

    ``mapping.safetensors`` holds the voxels' arrays, ``learned.safetensors`` the model's other parameters,
    ``mapping.json`` the rest.
    """
    arrays = {name: getattr(mapping, name) for name in FAMILIES[mapping.family].arrays}
    description = {"family": mapping.family, "layers": list(mapping.layers), "steps": mapping.steps}
    folder = Path(folder)
    with write_atomically(folder) as temporary:
        temporary.mkdir()
        write_arrays(temporary / "mapping.safetensors", arrays, _place(folder))
        if mapping.learned is not None:
            write_arrays(temporary / "learned.safetensors", mapping.learned, _place(folder))
        write_record(temporary / "mapping.json", description, _place(folder))


def load_mapping(folder: Path, with_learned: bool = False) -> Mapping:
    """Read a mapping, on request with `Mapping.learned` if that was saved.

    Raises
    ------
    InputError
        Names the missing, broken or incomplete file.
    """
    folder = Path(folder)
    description = folder / "mapping.json"
    content = read_record(description, _place(folder))
    try:
        layers, steps = tuple(str(name) for name in content["layers"]), int(content["steps"])
        # the first version's files name no family
        family = str(content.get("family", "factortopy"))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{description}: expected 'layers' and 'steps', found {content!r:.80}") from None
    _check_family(description, family)
    path = folder / "mapping.safetensors"
    arrays = read_arrays(path, _place(folder))
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
    kept = folder / "learned.safetensors"
    learned = read_arrays(kept, _place(folder)) if with_learned and kept.exists() else None
    return Mapping(layers=layers, steps=steps, family=family, learned=learned, **arrays)
