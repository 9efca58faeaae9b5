"""Fit a FactorTopy from layer tokens to voxel responses, and score it on held-out stimuli."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from harness.config import FactorTopyConfig, TrainedMappingConfig
from harness.errors import InputError
from harness.factortopy import FactorTopy
from harness.features import LayerTokens
from harness.mapping import Mapping
from harness.splits import Split

WARM_UP = 0.1  # share of the steps
BETAS = (0.9, 0.99)  # of AdamW: a memory of 100 steps, as fits are a few hundred
# of the layer selector's logits, which start at zero: in a few hundred steps they move little
LAYER_RATE = 4.0
EPSILON = 1e-12  # a mean over many voxels has small gradients: Adam's usual 1e-8 would slow large brains
STEPS_BETWEEN_CHECKS = 50  # for divergence; each check waits for the device


class FitDivergedError(InputError, RuntimeError):
    """The loss is no longer a finite number; the message names the setting to lower."""


def fit(
    tokens: LayerTokens,
    responses: Float[np.ndarray, "n_images n_voxels"],
    coords: Float[np.ndarray, "n_voxels 3"],
    bounding_box: Float[np.ndarray, "2 3"],
    split: Split,
    config: FactorTopyConfig,
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
        `StandardTokens` where several fits share them.
    responses : float array [n_images, n_voxels]
    coords, bounding_box : float arrays [n_voxels, 3], [2, 3]
        Places of the voxels; minimum and maximum of the subject's, whatever voxels these are.
    split : Split
    config : FactorTopyConfig
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
    check_inputs(tokens, responses, coords, split)

    def build(layer_widths: list[int]) -> FactorTopy:
        return FactorTopy(
            torch.as_tensor(coords, dtype=torch.float32),
            torch.as_tensor(bounding_box, dtype=torch.float32),
            layer_widths,
            config.n_channels,
        )

    def rates(model: FactorTopy) -> dict[nn.Parameter, float]:
        logits = next(reversed(list(model.layer_selector.parameters())))
        # as the model divides by D what the weights sum; only the selector's last layer, because a faster
        # hidden layer saturates, after which all voxels read the same
        return {model.weight: float(config.n_channels), logits: LAYER_RATE}

    fitted = fit_model(build, rates, tokens, responses, split, config, seed, bootstrap, device, progress)
    model = fitted.model
    with torch.no_grad():
        selectors = model.selectors()
    return Mapping(
        layers=tokens.layers,
        space=selectors.space.cpu().numpy(),
        layer=selectors.layer.cpu().numpy(),
        scale=selectors.scale.cpu().numpy(),
        weights=model.weight.detach().cpu().numpy(),
        bias=model.bias.detach().cpu().numpy(),
        r2=fitted.r2,
        correlation=fitted.correlation,
        steps=config.steps,
    )


@runtime_checkable
class VoxelModel(Protocol):
    """A `torch.nn.Module` that predicts voxels from layer tokens, as `fit_model` trains it."""

    bias: nn.Parameter

    def selectors(self, voxels: slice) -> Any:
        """What of some voxels' reading depends on no image; computed once for many predictions."""

    def regularizer(self, selectors: Any) -> Float[Tensor, ""]:
        """Added to the loss, with a weight that decays."""

    def __call__(
        self, local: Any, global_: Any, selectors: Any, voxels: slice
    ) -> Float[Tensor, "n_images n_voxels"]:
        """Predict some voxels from the local and the global tokens of every layer."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All that is trained."""

    def to(self, device: Any) -> Any:
        """The model on a device."""


Model = TypeVar("Model", bound=VoxelModel)


@dataclass(frozen=True)
class FittedModel(Generic[Model]):
    """A trained model, the standardized tokens of all stimuli, and its scores on the held-out ones."""

    model: Model
    tokens: LayerTokens
    r2: Float[np.ndarray, " n_voxels"]
    correlation: Float[np.ndarray, " n_voxels"]


def fit_model(
    build: Callable[[list[int]], Model],
    rates: Callable[[Model], dict[nn.Parameter, float]],
    tokens: LayerTokens,
    responses: Float[np.ndarray, "n_images n_voxels"],
    split: Split,
    config: TrainedMappingConfig,
    seed: int,
    bootstrap: bool,
    device: str | torch.device,
    progress: str | None,
) -> FittedModel[Model]:
    """Train any model of voxels in the way `fit` describes, and score it.

    Parameters
    ----------
    build : function of the layers' widths
        Makes the model, on the CPU; it may draw from torch's default generator, which `seed` has seeded.
    rates : function of the model
        Parameters that learn faster or slower than the others, and how many times.
    """
    generator = torch.Generator().manual_seed(seed)
    train = torch.from_numpy(split.train)
    standard = tokens
    if not isinstance(tokens, StandardTokens):
        standard = standardize_tokens(tokens, train, config.token_size, device)
    targets = torch.as_tensor(responses, dtype=torch.float32, device=device)
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed: that would seed the accelerators too
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        model = build([layer.shape[1] for layer in standard.global_]).to(device)
    with torch.no_grad():
        model.bias.copy_(targets[train.to(device)].mean(dim=0))
    if bootstrap:
        train = train[torch.randint(len(train), (len(train),), generator=generator)]
    _train(model, rates(model), standard, targets, train, config, generator, progress)
    held_out = torch.from_numpy(split.held_out)
    prediction = predict(model, standard, held_out, config.batch_size, config.voxels_per_pass)
    r2, correlation = score(prediction, np.asarray(responses)[split.held_out])
    return FittedModel(model, standard, r2, correlation)


@torch.no_grad()
def predict(
    model: VoxelModel,
    tokens: LayerTokens,
    images: Int[Tensor, " n_chosen"],
    batch_size: int,
    voxels_per_pass: int,
) -> Float[np.ndarray, "n_chosen n_voxels"]:
    """Responses to some of the images that the (standardized) tokens are of."""
    found = np.empty((len(images), len(model.bias)), dtype=np.float32)
    for voxels in _passes(len(model.bias), voxels_per_pass):
        selectors = model.selectors(voxels)
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            stimuli = tokens.take(images[rows])
            found[rows, voxels] = model(stimuli.local, stimuli.global_, selectors, voxels).cpu().numpy()
    return found


def _passes(n_voxels: int, voxels_per_pass: int) -> list[slice]:
    """All voxels, in as few and as equal parts as the bound allows."""
    n_passes = -(-n_voxels // voxels_per_pass)
    size = -(-n_voxels // n_passes)
    return [slice(start, min(start + size, n_voxels)) for start in range(0, n_voxels, size)]


def _train(
    model: VoxelModel,
    rates: dict[nn.Parameter, float],
    tokens: LayerTokens,
    targets: Float[Tensor, "n_images n_voxels"],
    train: Int[Tensor, " n_train"],
    config: TrainedMappingConfig,
    generator: torch.Generator,
    progress: str | None,
) -> None:
    groups = [([p for p in model.parameters() if p not in rates], 1.0)]
    groups += [([p], rate) for p, rate in rates.items()]
    optimizer = torch.optim.AdamW(
        [{"params": parameters} for parameters, _ in groups],
        betas=BETAS,
        eps=EPSILON,
        weight_decay=config.weight_decay,
        fused=True,
    )
    # OneCycleLR divides by zero unless its rise and its fall have a step each
    cycle = max(config.steps, 3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[config.lr * rate for _, rate in groups],
        total_steps=cycle,
        pct_start=max(WARM_UP, 2 / cycle),
        cycle_momentum=False,
    )
    batches = _draw_batches(train, config.batch_size, config.steps, generator)
    passes = _passes(targets.shape[1], config.voxels_per_pass)
    bar = tqdm(batches, desc=progress, total=config.steps, disable=progress is None, leave=False)
    for step, batch in enumerate(bar):
        stimuli, truth = tokens.take(batch), targets[batch.to(targets.device)]
        decay = config.regularization * max(1 - step / config.regularization_steps, 0)
        optimizer.zero_grad()
        loss = torch.zeros((), device=targets.device)
        # loss and regularizer are means over voxels: parts of the brain add up to the whole
        for voxels in passes:
            selectors = model.selectors(voxels)
            prediction = model(stimuli.local, stimuli.global_, selectors, voxels)
            error = F.smooth_l1_loss(prediction, truth[:, voxels], beta=config.beta)
            share = prediction.shape[1] / truth.shape[1]
            (share * (error + decay * model.regularizer(selectors))).backward()
            loss += share * error.detach()
        optimizer.step()
        schedule.step()
        if (step + 1) % STEPS_BETWEEN_CHECKS == 0 or step + 1 == config.steps:
            if not torch.isfinite(loss):
                raise FitDivergedError(
                    f"mapping.lr: the fit diverged within {step + 1} steps at {config.lr:g}; lower mapping.lr"
                )
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def check_inputs(
    tokens: LayerTokens,
    responses: Float[np.ndarray, "n_images n_voxels"],
    coords: Float[np.ndarray, "n_voxels 3"],
    split: Split,
) -> None:
    """Raise `InputError` where sizes do not agree, or tokens or responses are not finite."""
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
    if not isinstance(tokens, StandardTokens):
        _check_finite(tokens)


def _check_finite(tokens: LayerTokens) -> None:
    for name, local, global_ in zip(tokens.layers, tokens.local, tokens.global_, strict=True):
        if not (torch.isfinite(local).all() and torch.isfinite(global_).all()):
            raise InputError(f"tokens of layer {name!r} hold values that are not finite")


@dataclass(frozen=True)
class StandardTokens(LayerTokens):
    """What `standardize_tokens` gives: the same for every seed and bootstrap sample of a snapshot."""


def standardize_tokens(
    tokens: LayerTokens, train: Int[Tensor, " n_train"], token_size: int, device: str | torch.device
) -> StandardTokens:
    """Resize local tokens (bilinear) and give all layers the same centre and scale.

    Channels are centred over the training stimuli (and places), then a layer's local tokens, and its
    global ones, are divided by one number each, so that their mean square is 1. Deep layers of a residual
    network have much larger tokens than early ones; left so, the layer selector would be drawn to them
    before anything is learned, and all the more after a fine-tuning that changes scales alone. The
    tokens' directions within a layer are kept.

    Returns
    -------
    StandardTokens, float32 on `device`, local tokens in channels-last memory

    Raises
    ------
    InputError
        If tokens are not finite.
    """
    _check_finite(tokens)
    local = []
    for layer in tokens.local:
        resized = layer.to(device, torch.float32)
        if resized.shape[2:] != (token_size, token_size):
            resized = F.interpolate(resized, (token_size, token_size), mode="bilinear", align_corners=False)
        local.append(_standardize(resized, train).contiguous(memory_format=torch.channels_last))
    global_ = [_standardize(layer.to(device, torch.float32), train) for layer in tokens.global_]
    return StandardTokens(tuple(local), tuple(global_), tokens.layers)


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
