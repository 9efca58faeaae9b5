"""Compare `FactorTopy` with recorded numbers of the published implementation.

    python -m harness.conformance FILE.npz

It prints one line per part with the largest relative difference and its array. The exit status is 0 within
all bounds, 1 beyond a bound, and 2 for an invalid file.

Names of the published parameters and ours (D bottleneck channels, C_l channels of layer l):

=====================================  ==========================================================
published                              ours
=====================================  ==========================================================
weight, bias                           weight, bias
local_token_bottleneck.l.weight        local_bottleneck.l.weight, [D, C_l, 1, 1] as [D, C_l]
global_token_bottleneck.l.weight       global_bottleneck.l.weight
space_selector_mlp.i.*, i = 1, 3, 5    space_selector.(i-1).*
layer_selector_mlp.i.*                 layer_selector.(i-1).*
scale_selector_mlp.i.*                 scale_selector.(i-1).*
=====================================  ==========================================================
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from harness.mappings.factortopy.model import FactorTopy
from harness.storage import (
    InputError,
    read_npz,
)

BOUND_START = 1e-6  # for values computed from given parameters
BOUND_TRAINED = 1e-5  # for gradients, and values after optimizer steps

# the published recipe
BETA = 0.1
REGULARIZATION = 0.1
REGULARIZATION_STEPS = 2000
LEARNING_RATE = 1e-3

Array = Shaped[np.ndarray, "..."]


@dataclass(frozen=True)
class Difference:
    """Difference of one array from the published one.

    Attributes
    ----------
    part : str
        Part of the computation, such as ``"gradients"``.
    array : str
        Key of the array in the file.
    relative : float
        ‖ours - theirs‖ / ‖theirs‖ (Frobenius); ‖ours‖ if theirs is zero.
    bound : float
        Largest `relative` that conforms.
    """

    part: str
    array: str
    relative: float
    bound: float

    @property
    def conforms(self) -> bool:
        """Whether the difference is within the bound; NaN is not."""
        return self.relative <= self.bound


def compare_with_published(reference: dict[str, Array]) -> list[Difference]:
    """Repeat the recorded computation and compare every array.

    Parameters
    ----------
    reference : dict of str to array
        A file's arrays; the conformance README lists keys and shapes.

    Returns
    -------
    list of Difference, in the order of the computation

    Raises
    ------
    InputError
        If an array is missing or its shape does not fit the others.
    """
    model = _build(reference)
    n_steps = len(_get(reference, "losses"))
    n_layers = _count_layers(reference)
    local = [_tensor(reference, f"local/{layer}") for layer in range(n_layers)]
    global_ = [_tensor(reference, f"global/{layer}") for layer in range(n_layers)]
    responses = _tensor(reference, "responses")
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    differences: list[Difference] = []

    def note(part: str, array: str, ours: Tensor, bound: float) -> None:
        differences.append(_difference(part, array, ours, _get(reference, array), bound))

    note("position encoding", "position_encoding", model.encoding, BOUND_START)
    chosen = model.selectors()
    note("selectors", "selector_space0", chosen.space, BOUND_START)
    note("selectors", "selector_layer0", chosen.layer, BOUND_START)
    note("selectors", "selector_scale0", chosen.scale[:, None], BOUND_START)

    losses, regularizers = [], []
    for step in range(n_steps):
        chosen = model.selectors()
        prediction = model([t[step] for t in local], [t[step] for t in global_], chosen)
        loss = F.smooth_l1_loss(prediction, responses[step], beta=BETA)
        regularizer = model.regularizer(chosen)
        optimizer.zero_grad()
        (loss + REGULARIZATION * max(1 - step / REGULARIZATION_STEPS, 0) * regularizer).backward()
        losses.append(loss.detach())
        regularizers.append(regularizer.detach())
        if step == 0:
            note("prediction", "prediction0", prediction, BOUND_START)
            note("regularizer", "regularizer0", regularizer, BOUND_START)
            for name, parameter in model.named_parameters():
                array = f"grad0/{published_name(name)}"
                gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
                note("gradients", array, gradient, BOUND_TRAINED)
        optimizer.step()

    note("losses", "losses", torch.stack(losses), BOUND_TRAINED)
    note("regularizers", "regularizers", torch.stack(regularizers), BOUND_TRAINED)
    for name, parameter in model.named_parameters():
        array = f"param{n_steps}/{published_name(name)}"
        note(f"parameters after {n_steps} steps", array, parameter, BOUND_TRAINED)
    return differences


def published_name(name: str) -> str:
    """Translate one of our parameters' names to the published one (table at the top)."""
    name = re.sub(r"^(local|global)_bottleneck", r"\1_token_bottleneck", name)
    # theirs has the position encoding as module 0
    return re.sub(
        r"^(space|layer|scale)_selector\.(\d+)", lambda m: f"{m[1]}_selector_mlp.{int(m[2]) + 1}", name
    )


def read_reference(path: Path) -> dict[str, Array]:
    """All arrays of a file; an `InputError` that names it if it is missing or broken."""
    return read_npz(path)


def format_differences(differences: Sequence[Difference]) -> str:
    """Format one line per part: its largest difference, the bound, and the array."""
    lines = []
    for part in dict.fromkeys(d.part for d in differences):
        # NaN is worse than any number
        worst = max(
            (d for d in differences if d.part == part), key=lambda d: np.nan_to_num(d.relative, nan=np.inf)
        )
        verdict = "ok  " if all(d.conforms for d in differences if d.part == part) else "FAIL"
        lines.append(f"{verdict} {part:<28} {worst.relative:.1e} (bound {worst.bound:.0e})  {worst.array}")
    return "\n".join(lines)


def _build(reference: dict[str, Array]) -> FactorTopy:
    """Build the model with the recorded initial parameters."""
    coords = _tensor(reference, "coords")
    if coords.ndim != 2 or coords.shape[1] != 3 or not len(coords):
        raise InputError(f"coords: expected n_voxels x 3, found {_shape(coords)}")
    widths = []
    for layer in range(_count_layers(reference)):
        tokens, first = _get(reference, f"local/{layer}"), _get(reference, "local/0")
        if tokens.ndim != 5 or tokens.shape[3:] != first.shape[3:]:
            raise InputError(
                f"local/{layer}: expected n_steps x n_images x n_channels x height x width with the same "
                f"height and width in all layers, found {_shape(tokens)}"
            )
        widths.append(tokens.shape[2])
    weight = _get(reference, "param0/weight")
    if weight.ndim != 2:
        raise InputError(f"param0/weight: expected n_voxels x n_channels, found {_shape(weight)}")
    n_steps, n_images = _get(reference, "local/0").shape[:2]
    expected = {
        "losses": (n_steps,),
        "responses": (n_steps, n_images, len(coords)),
        **{f"local/{layer}": (n_steps, n_images, n, *first.shape[3:]) for layer, n in enumerate(widths)},
        **{f"global/{layer}": (n_steps, n_images, n) for layer, n in enumerate(widths)},
    }
    for key, shape in expected.items():
        if _get(reference, key).shape != shape:
            raise InputError(f"{key}: expected {_shape(shape)}, found {_shape(_get(reference, key))}")

    bounding_box = torch.stack([coords.amin(0), coords.amax(0)])
    with torch.random.fork_rng(devices=[]):
        model = FactorTopy(coords, bounding_box, widths, weight.shape[1]).to(coords.dtype)
    state = model.state_dict()
    for name, parameter in model.named_parameters():
        state[name] = _reshape(
            f"param0/{published_name(name)}", _get(reference, f"param0/{published_name(name)}"), parameter
        )
    model.load_state_dict(state)
    return model


def _difference(part: str, array: str, ours: Tensor, theirs: Array, bound: float) -> Difference:
    expected = _reshape(array, theirs, ours).double()
    found = ours.detach().double()
    size = expected.norm()
    relative = (found - expected).norm() / (size if size > 0 else 1)
    return Difference(part, array, float(relative), bound)


def _reshape(key: str, array: Array, like: Tensor) -> Float[Tensor, "..."]:
    """An array in the shape of ours, which may lack axes of length 1."""
    if tuple(n for n in array.shape if n != 1) != tuple(n for n in like.shape if n != 1):
        raise InputError(f"{key}: expected {_shape(like)}, found {_shape(array)}")
    return torch.from_numpy(np.asarray(array)).reshape(like.shape)


def _count_layers(reference: dict[str, Array]) -> int:
    _get(reference, "local/0")
    return sum(re.fullmatch(r"local/\d+", key) is not None for key in reference)


def _tensor(reference: dict[str, Array], key: str) -> Float[Tensor, "..."]:
    return torch.from_numpy(_get(reference, key))


def _get(reference: dict[str, Array], key: str) -> Array:
    if key not in reference:
        raise InputError(f"{key}: array is missing from the file")
    if not np.issubdtype(reference[key].dtype, np.floating):
        raise InputError(f"{key}: expected floating point numbers, found {reference[key].dtype}")
    return reference[key]


def _shape(array: Array | Tensor | tuple[int, ...]) -> str:
    shape = array if isinstance(array, tuple) else tuple(array.shape)
    return " x ".join(map(str, shape)) or "a scalar"
