"""Train a model of voxels on layer tokens and score it on held-out stimuli."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from harness.config import TrainedMappingConfig
from harness.mappings.data import (
    FitData,
    FitOptions,
)
from harness.mappings.mapping import Mapping
from harness.mappings.splits import Split
from harness.mappings.voxel_scores import score
from harness.storage import (
    InputError,
    progress_bar,
)
from harness.tokens import (
    StandardTokens,
    standardize_tokens,
)

WARM_UP = 0.1  # share of the steps
BETAS = (0.9, 0.99)  # of AdamW: averages over 100 steps suit fits of a few hundred
EPSILON = 1e-12  # means over many voxels have small gradients; Adam's default 1e-8 would slow large brains
OF_VOXELS = ("weight", "bias")  # parameters that a mapping stores as arrays of its voxels
CHECKS = 20  # per fit: for divergence, and for the best state on validation stimuli


class FitDivergedError(InputError, RuntimeError):
    """The loss is no longer finite; the message names the setting to lower."""


@runtime_checkable
class VoxelModel(Protocol):
    """A `torch.nn.Module` that predicts voxels from layer tokens, as `fit_model` trains it."""

    weight: nn.Parameter
    bias: nn.Parameter

    def selectors(self, voxels: slice) -> Any:
        """Compute the image-independent part for some voxels, once for many predictions."""

    def regularizer(self, selectors: Any) -> Float[Tensor, ""]:
        """Return the regularizer, which is added to the loss with a decaying weight."""

    def __call__(
        self, local: Any, global_: Any, selectors: Any, voxels: slice
    ) -> Float[Tensor, "n_images n_voxels"]:
        """Predict some voxels from every layer's local and global tokens."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Iterate over all trained parameters."""

    def to(self, device: Any) -> Any:
        """Move the model to a device."""


Model = TypeVar("Model", bound=VoxelModel)
Fitted = TypeVar("Fitted", bound=VoxelModel, covariant=True)


@dataclass(frozen=True)
class FittedModel(Generic[Fitted]):
    """A trained model and its scores on the held-out stimuli.

    Attributes
    ----------
    model : VoxelModel
    tokens : StandardTokens
        Of all stimuli, as the model was trained on them.
    r2, correlation : float arrays [n_voxels]
    steps : int
        Optimizer steps to the selected state.
    """

    model: Fitted
    tokens: StandardTokens
    r2: Float[np.ndarray, " n_voxels"]
    correlation: Float[np.ndarray, " n_voxels"]
    steps: int

    def learned(self) -> dict[str, np.ndarray]:
        """Collect all that predictions and warm starts need beside every voxel's weights and bias.

        ``model.*`` are the model's other parameters, ``frame.*`` is the frame of its tokens.
        """
        found = {f"frame.{name}": array for name, array in self.tokens.frame.arrays().items()}
        for name, parameter in self.model.named_parameters():
            if name not in OF_VOXELS:
                found[f"model.{name}"] = parameter.detach().cpu().numpy()
        return found


@dataclass(frozen=True)
class FitSample:
    """What one fit is trained on.

    Attributes
    ----------
    tokens : StandardTokens
        Of all stimuli.
    targets : float tensor [n_images, n_voxels]
        Responses to all stimuli.
    rows : int array [n_rows]
        Rows to train on, with the repeats of a bootstrap sample.
    pictures : int array [n_rows]
        Number of the picture that each of `rows` shows.
    """

    tokens: StandardTokens
    targets: Float[Tensor, "n_images n_voxels"]
    rows: Int[np.ndarray, " n_rows"]
    pictures: Int[np.ndarray, " n_rows"]


Pull = Callable[[Any, slice], Float[Tensor, ""]]
"""A term of the loss, a mean over voxels, from the selectors of some voxels and which they are."""


def fit_model(
    build: Callable[[list[int]], Model],
    rates: Callable[[Model], dict[nn.Parameter, float]],
    data: FitData,
    config: TrainedMappingConfig,
    options: FitOptions,
    prepare: Callable[[Model, FitSample], Pull | None] = lambda model, sample: None,
    finish: Callable[[Model, FitSample], None] = lambda model, sample: None,
) -> FittedModel[Model]:
    """Train any model of voxels as `factortopy.fit.fit` describes, and score it.

    Parameters
    ----------
    build : function of the layers' widths
        Builds the model on the CPU. It may draw from torch's default generator, seeded by `options.seed`.
    rates : function of the model
        Parameters with a learning rate of their own, as a multiple of ``mapping.lr``.
    data : FitData
    config : TrainedMappingConfig
    options : FitOptions
    prepare : function of the model and a `FitSample`, optional
        Called once before the first step, with the drawn sample. It may change the model, and may return a
        term to add to the loss.
    finish : function of the model and the same `FitSample`, optional
        Called after the last step. It may change the model.
    """
    split, device = data.split, options.device
    generator = torch.Generator().manual_seed(options.seed)
    train, validation = torch.from_numpy(split.train), None
    standard = data.tokens
    if not isinstance(standard, StandardTokens):
        standard = standardize_tokens(standard, train, config.token_size, device)
    targets = torch.as_tensor(data.responses, dtype=torch.float32, device=device)
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the accelerators too
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        model = build([layer.shape[1] for layer in standard.global_])
    if config.validation:
        validation, train = _set_aside(split, config.validation, generator)
    with torch.no_grad():
        model.bias.copy_(targets[train.to(targets.device)].mean(dim=0))
    if options.start is not None:
        _begin_from(model, options.start)
    model = model.to(device)
    if options.bootstrap:
        train = train[torch.randint(len(train), (len(train),), generator=generator)]
    rows = train.numpy()
    sample = FitSample(standard, targets, rows, split.shown_in(rows))
    pull = prepare(model, sample)
    samples = _Samples(standard, targets, train, validation)
    steps = _train(model, rates(model), samples, config, generator, options.progress, pull)
    finish(model, sample)
    held_out = torch.from_numpy(split.held_out)
    prediction = predict(model, standard, held_out, config.batch_size, config.voxels_per_pass)
    r2, correlation = score(prediction, np.asarray(data.responses)[split.held_out])
    return FittedModel(model, standard, r2, correlation, steps)


def _set_aside(
    split: Split, share: float, generator: torch.Generator
) -> tuple[Int[Tensor, " n_validation"], Int[Tensor, " n_rest"]]:
    """Split the training rows into validation rows, which only select the best state, and the rest.

    No picture is in both. The draw comes before the bootstrap, so no stimulus is in both either.
    """
    picture = split.shown_in(split.train)
    pictures = np.unique(picture)
    n_validation = round(len(pictures) * share)
    if n_validation < 1 or len(pictures) - n_validation < 2:
        raise InputError(
            f"mapping.validation: {share} of {len(pictures)} stimuli leaves {len(pictures) - n_validation} "
            f"to fit on and {n_validation} to validate on, expected at least 2 and 1"
        )
    order = torch.randperm(len(pictures), generator=generator).numpy()
    chosen = np.isin(picture, pictures[order[:n_validation]])
    return torch.from_numpy(split.train[chosen]), torch.from_numpy(split.train[~chosen])


def _begin_from(model: VoxelModel, start: Mapping) -> None:
    """Copy a mapping's parameters into the model."""
    state = {"weight": start.weights, "bias": start.bias}
    for name, array in (start.learned or {}).items():
        if name.startswith("model."):
            state[name.removeprefix("model.")] = array
    parameters = dict(model.named_parameters())
    found = {name: array.shape for name, array in state.items() if array is not None}
    expected = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    if found != expected:
        names = ", ".join(sorted(name for name in found | expected if found.get(name) != expected.get(name)))
        raise InputError(
            "warm start: found a mapping with other layers, voxels or channels, or saved without its learned "
            f"parameters ({names}); expected one of the same backbone, brain and settings"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(np.array(state[name])))


@torch.no_grad()
def predict(
    model: VoxelModel,
    tokens: StandardTokens,
    images: Int[Tensor, " n_chosen"],
    batch_size: int,
    voxels_per_pass: int,
) -> Float[np.ndarray, "n_chosen n_voxels"]:
    """Predict the responses to some of the images."""
    found = np.empty((len(images), len(model.bias)), dtype=np.float32)
    for voxels in cut_voxels(len(model.bias), voxels_per_pass):
        selectors = model.selectors(voxels)
        first = 0
        for stimuli in tokens.stream(images.split(batch_size)):
            rows = slice(first, first + stimuli.n_images)
            found[rows, voxels] = model(stimuli.local, stimuli.global_, selectors, voxels).cpu().numpy()
            first += stimuli.n_images
    return found


def cut_voxels(n_voxels: int, voxels_per_pass: int) -> list[slice]:
    """Cut the voxels into as few parts as the bound allows, as equal as possible."""
    n_passes = -(-n_voxels // voxels_per_pass)
    size = -(-n_voxels // n_passes)
    return [slice(start, min(start + size, n_voxels)) for start in range(0, n_voxels, size)]


@dataclass(frozen=True)
class _Samples:
    """Tokens and responses of all stimuli, and the rows of them to fit and to validate on."""

    tokens: StandardTokens
    targets: Float[Tensor, "n_images n_voxels"]
    train: Int[Tensor, " n_train"]
    validation: Int[Tensor, " n_validation"] | None


def _train(
    model: VoxelModel,
    rates: dict[nn.Parameter, float],
    samples: _Samples,
    config: TrainedMappingConfig,
    generator: torch.Generator,
    progress: str | None,
    pull: Pull | None,
) -> int:
    """Train and return the steps to the selected state: the best on validation stimuli, or the last."""
    tokens, targets, validation = samples.tokens, samples.targets, samples.validation
    parameters = [parameter for _, parameter in model.named_parameters()]
    optimizer, schedule = optimize(parameters, rates, config)
    batches = draw_batches(samples.train, config.batch_size, config.steps, generator)
    passes = cut_voxels(targets.shape[1], config.voxels_per_pass)
    check_every = -(-config.steps // CHECKS)
    best: _State | None = None
    bar = progress_bar(batches, progress, total=config.steps)
    for step, (batch, stimuli) in enumerate(zip(bar, tokens.stream(batches), strict=True)):
        truth = targets[batch.to(targets.device)]
        decay = config.regularization * max(1 - step / config.regularization_steps, 0)
        optimizer.zero_grad()
        loss = torch.zeros((), device=targets.device)
        # loss and regularizer are means over voxels, so the passes' shares add up
        for voxels in passes:
            selectors = model.selectors(voxels)
            prediction = model(stimuli.local, stimuli.global_, selectors, voxels)
            error = F.smooth_l1_loss(prediction, truth[:, voxels], beta=config.beta)
            share = prediction.shape[1] / truth.shape[1]
            objective = error + decay * model.regularizer(selectors)
            if pull is not None:
                objective = objective + pull(selectors, voxels)
            (share * objective).backward()
            loss += share * error.detach()
        optimizer.step()
        schedule.step()
        if (step + 1) % check_every and step + 1 < config.steps:
            continue
        if not torch.isfinite(loss):
            raise FitDivergedError(
                f"mapping.lr: the fit diverged within {step + 1} steps at {config.lr:g}; lower mapping.lr"
            )
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if validation is None:
            continue
        guess = predict(model, tokens, validation, config.batch_size, config.voxels_per_pass)
        answer = targets[validation.to(targets.device)].cpu()
        found = F.smooth_l1_loss(torch.from_numpy(guess), answer, beta=config.beta).item()
        if best is None or found < best.loss:
            best = _State(found, step + 1, [parameter.detach().clone() for parameter in parameters])
        elif config.patience is not None and step + 1 - best.steps >= config.patience * check_every:
            break
    bar.close()
    if best is None:
        return config.steps
    with torch.no_grad():
        for parameter, kept in zip(parameters, best.parameters, strict=True):
            parameter.copy_(kept)
    return best.steps


@dataclass(frozen=True)
class _State:
    """Parameters after some steps, with their loss on validation stimuli."""

    loss: float
    steps: int
    parameters: list[Tensor]


def optimize(
    parameters: Sequence[nn.Parameter], rates: dict[nn.Parameter, float], config: TrainedMappingConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Make the optimizer and its schedule: a rise over `WARM_UP` of ``mapping.steps``, then a fall to 0."""
    groups = [([p for p in parameters if p not in rates], 1.0)]
    groups += [([p], rate) for p, rate in rates.items()]
    optimizer = torch.optim.AdamW(
        [{"params": members} for members, _ in groups],
        betas=BETAS,
        eps=EPSILON,
        weight_decay=config.weight_decay,
        fused=True,
    )
    # OneCycleLR divides by zero unless its rise and its fall each have a step
    cycle = max(config.steps, 3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[config.lr * rate for _, rate in groups],
        total_steps=cycle,
        pct_start=max(WARM_UP, 2 / cycle),
        cycle_momentum=False,
    )
    return optimizer, schedule


def draw_batches(
    train: Int[Tensor, " n_train"], batch_size: int, steps: int, generator: torch.Generator
) -> Sequence[Int[Tensor, " _"]]:
    """Draw passes over the stimuli, each in its own order; a batch may span two passes."""
    n_passes = -(-steps * batch_size // len(train))
    order = torch.cat([train[torch.randperm(len(train), generator=generator)] for _ in range(n_passes)])
    return order[: steps * batch_size].split(batch_size)
