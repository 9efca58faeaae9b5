"""Fit a FactorTopy from layer tokens to voxel responses, and score it on held-out stimuli."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from harness.config import MappingConfig
from harness.errors import InputError
from harness.factortopy import FactorTopy
from harness.features import LayerTokens
from harness.files import read_json, write_atomically, write_json

WARM_UP = 0.1  # share of the steps
BETAS = (0.9, 0.99)  # of AdamW: a memory of 100 steps, as fits are a few hundred
LAYER_RATE = (
    4.0  # of the layer selector's logits, which start at zero: in a few hundred steps they move little
)
EPSILON = 1e-12  # a mean over many voxels has small gradients: Adam's usual 1e-8 would slow large brains
STEPS_BETWEEN_CHECKS = 50  # for divergence; each check waits for the device


class FitDivergedError(InputError, RuntimeError):
    """The loss is no longer a finite number; the message names the setting to lower."""


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


@dataclass(frozen=True)
class Split:
    """Which stimuli are fitted on and which are only scored on: sorted, disjoint indices."""

    train: Int[np.ndarray, " n_train"]
    held_out: Int[np.ndarray, " n_held_out"]


def split_stimuli(n_images: int, fraction_held_out: float, seed: int) -> Split:
    """Draw the held-out stimuli.

    Raises
    ------
    InputError
        If fewer than two stimuli would be left on either side.
    """
    n_held_out = round(n_images * fraction_held_out)
    if n_held_out < 2 or n_images - n_held_out < 2:
        raise InputError(
            f"mapping.held_out: {fraction_held_out} of {n_images} stimuli leaves "
            f"{n_images - n_held_out} to fit on and {n_held_out} to score on; at least 2 of each are needed"
        )
    order = np.random.default_rng(seed).permutation(n_images)
    return Split(train=np.sort(order[n_held_out:]), held_out=np.sort(order[:n_held_out]))


def save_split(split: Split, path: Path) -> None:
    """Write a split as JSON."""
    write_json(path, {"train": split.train.tolist(), "held_out": split.held_out.tolist()})


def load_split(path: Path) -> Split:
    """Read a split; `InputError` names the file if it is missing or holds none."""
    content = read_json(path)
    try:
        parts = {name: np.array(content[name]) for name in ("train", "held_out")}
        whole = all(part.ndim == 1 and part.dtype.kind == "i" and part.min() >= 0 for part in parts.values())
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole or np.intersect1d(parts["train"], parts["held_out"]).size:
        raise InputError(
            f"{path}: not a split; expected disjoint lists of stimulus indices 'train' and 'held_out'"
        )
    return Split(**parts)


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
    try:
        arrays = load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from None
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


def fit(
    tokens: LayerTokens,
    responses: Float[np.ndarray, "n_images n_voxels"],
    coords: Float[np.ndarray, "n_voxels 3"],
    bounding_box: Float[np.ndarray, "2 3"],
    split: Split,
    config: MappingConfig,
    seed: int,
    bootstrap: bool = False,
    device: str | torch.device = "cpu",
    progress: str | None = None,
) -> Mapping:
    """Fit FactorTopy on the training stimuli and score it on the held-out ones.

    The published recipe (smooth-L1, decaying regularizer, AdamW) on raw responses, with changes that let it
    converge in a tenth of the steps: biases start at the mean training response; tokens are centred per
    channel and scaled per layer (`standardize_tokens`); the learning rate warms up over a tenth of the
    steps, then falls to zero (both cosine); and the voxels' weights learn `n_channels` times faster than
    the rest, which undoes the model's 1/D, and the layer selector's last layer `LAYER_RATE` times faster.

    Parameters
    ----------
    tokens : LayerTokens of all stimuli
    responses : float array [n_images, n_voxels]
    coords, bounding_box : float arrays [n_voxels, 3], [2, 3]
        Places of the voxels; minimum and maximum of the subject's, whatever voxels these are.
    split : Split
    config : MappingConfig
    seed : int
        Of everything drawn: initial weights, bootstrap sample, order of the batches. The global random
        state is neither read nor changed.
    bootstrap : bool
        Fit on a sample, drawn with replacement, of the training stimuli.
    device : str or torch.device
    progress : str, optional
        Label of a progress bar; none without.

    Raises
    ------
    InputError
        If sizes do not agree, or tokens or responses are not finite.
    FitDivergedError
        If the loss stops being finite.
    """
    _check(tokens, responses, coords, split)
    generator = torch.Generator().manual_seed(seed)
    train = torch.from_numpy(split.train)
    standard = standardize_tokens(tokens, train, config.token_size, device)
    targets = torch.as_tensor(responses, dtype=torch.float32, device=device)
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed: that would seed the accelerators too
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        model = FactorTopy(
            torch.as_tensor(coords, dtype=torch.float32),
            torch.as_tensor(bounding_box, dtype=torch.float32),
            [layer.shape[1] for layer in standard.global_],
            config.n_channels,
        ).to(device)
    with torch.no_grad():
        model.bias.copy_(targets[train.to(device)].mean(dim=0))
    if bootstrap:
        train = train[torch.randint(len(train), (len(train),), generator=generator)]

    logits = next(reversed(list(model.layer_selector.parameters())))
    # as the model divides by D what the weights sum; only the selector's last layer, because a faster
    # hidden layer saturates, after which all voxels read the same
    rates = {model.weight: float(config.n_channels), logits: LAYER_RATE}
    groups = [([p for p in model.parameters() if p not in rates], 1.0)]
    groups += [([p], rate) for p, rate in rates.items()]
    optimizer = torch.optim.AdamW(
        [{"params": parameters} for parameters, _ in groups],
        betas=BETAS,
        eps=EPSILON,
        weight_decay=config.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[config.lr * rate for _, rate in groups],
        total_steps=config.steps,
        pct_start=WARM_UP,
        cycle_momentum=False,
    )
    batches = _draw_batches(train, config.batch_size, config.steps, generator)
    bar = tqdm(batches, desc=progress, total=config.steps, disable=progress is None, leave=False)
    for step, batch in enumerate(bar):
        stimuli = standard.take(batch)
        selectors = model.selectors()
        prediction = model(stimuli.local, stimuli.global_, selectors)
        loss = F.smooth_l1_loss(prediction, targets[batch.to(device)], beta=config.beta)
        decay = max(1 - step / config.regularization_steps, 0)
        optimizer.zero_grad()
        (loss + config.regularization * decay * model.regularizer(selectors)).backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % STEPS_BETWEEN_CHECKS == 0 or step + 1 == config.steps:
            if not torch.isfinite(loss):
                raise FitDivergedError(
                    f"mapping.lr: the fit diverged within {step + 1} steps at {config.lr:g}; lower mapping.lr"
                )
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)

    with torch.no_grad():
        selectors = model.selectors()
        predictions = [
            model(stimuli.local, stimuli.global_, selectors)
            for stimuli in map(standard.take, torch.from_numpy(split.held_out).split(config.batch_size))
        ]
    r2, correlation = score(torch.cat(predictions).cpu().numpy(), np.asarray(responses)[split.held_out])
    return Mapping(
        layers=tokens.layers,
        space=selectors.space.cpu().numpy(),
        layer=selectors.layer.cpu().numpy(),
        scale=selectors.scale.cpu().numpy(),
        weights=model.weight.detach().cpu().numpy(),
        bias=model.bias.detach().cpu().numpy(),
        r2=r2,
        correlation=correlation,
        steps=config.steps,
    )


def standardize_tokens(
    tokens: LayerTokens, train: Int[Tensor, " n_train"], token_size: int, device: str | torch.device
) -> LayerTokens:
    """Resize local tokens (bilinear) and give all layers the same centre and scale.

    Channels are centred over the training stimuli (and places), then a layer's local tokens, and its
    global ones, are divided by one number each, so that their mean square is 1. Deep layers of a residual
    network have much larger tokens than early ones; left so, the layer selector would be drawn to them
    before anything is learned, and all the more after a fine-tuning that changes scales alone. The
    tokens' directions within a layer are kept.

    Returns
    -------
    LayerTokens, float32 on `device`, local tokens in channels-last memory
    """
    local = []
    for layer in tokens.local:
        resized = layer.to(device, torch.float32)
        if resized.shape[2:] != (token_size, token_size):
            resized = F.interpolate(resized, (token_size, token_size), mode="bilinear", align_corners=False)
        local.append(_standardize(resized, train).contiguous(memory_format=torch.channels_last))
    global_ = [_standardize(layer.to(device, torch.float32), train) for layer in tokens.global_]
    return LayerTokens(tuple(local), tuple(global_), tokens.layers)


def score(
    prediction: Float[np.ndarray, "n_images n_voxels"], responses: Float[np.ndarray, "n_images n_voxels"]
) -> tuple[Float[np.ndarray, " n_voxels"], Float[np.ndarray, " n_voxels"]]:
    """R² (1 - SSE/SST) and Pearson correlation per voxel, float32.

    R² is 0 where the responses do not vary, the correlation where either side does not.
    """
    found, truth = prediction.astype(np.float64), responses.astype(np.float64)
    varies = np.ptp(truth, axis=0) > 0
    error = np.square(truth - found).sum(axis=0)
    found_centred, truth_centred = found - found.mean(axis=0), truth - truth.mean(axis=0)
    total = np.square(truth_centred).sum(axis=0)
    norms = np.sqrt(np.square(found_centred).sum(axis=0) * total)
    products = (found_centred * truth_centred).sum(axis=0)
    defined = varies & (np.ptp(found, axis=0) > 0) & (norms > 0)
    r2 = 1 - np.divide(error, total, out=np.ones_like(total), where=varies & (total > 0))
    correlation = np.divide(products, norms, out=np.zeros_like(norms), where=defined)
    return r2.astype(np.float32), correlation.clip(-1, 1).astype(np.float32)


def _standardize(layer: Float[Tensor, "n_images n_channels ..."], train: Int[Tensor, " n_train"]) -> Tensor:
    fitted = layer[train.to(layer.device)]
    axes = [axis for axis in range(layer.ndim) if axis != 1]
    centre = fitted.mean(dim=axes, keepdim=True)
    mean_square = (fitted - centre).square().mean()
    # a layer that says the same of every image says nothing: zero, not 0/0
    return (layer - centre) / (mean_square.sqrt() if mean_square > 0 else 1)


def _draw_batches(
    train: Int[Tensor, " n_train"], batch_size: int, steps: int, generator: torch.Generator
) -> Iterator[Int[Tensor, " n_batch"]]:
    """Passes over the stimuli, each in its own order; a batch may end one pass and begin the next."""
    n_passes = -(-steps * batch_size // len(train))
    order = torch.cat([train[torch.randperm(len(train), generator=generator)] for _ in range(n_passes)])
    return iter(order[: steps * batch_size].split(batch_size))


def _check(
    tokens: LayerTokens,
    responses: Float[np.ndarray, "n_images n_voxels"],
    coords: Float[np.ndarray, "n_voxels 3"],
    split: Split,
) -> None:
    n_images, n_voxels = responses.shape
    if tokens.n_images != n_images:
        raise InputError(
            f"tokens of {tokens.n_images} stimuli, but responses to {n_images}; expected as many"
        )
    if len(coords) != n_voxels:
        raise InputError(
            f"coordinates of {len(coords)} voxels, but responses of {n_voxels}; expected as many"
        )
    last = max(split.train.max(), split.held_out.max())
    if last >= n_images:
        raise InputError(f"split names stimulus {last}, but there are {n_images} (0 to {n_images - 1})")
    if not np.isfinite(responses).all():
        raise InputError("responses hold values that are not finite; leave out the voxels that have them")
    for name, local, global_ in zip(tokens.layers, tokens.local, tokens.global_, strict=True):
        if not (torch.isfinite(local).all() and torch.isfinite(global_).all()):
            raise InputError(f"tokens of layer {name!r} hold values that are not finite")
