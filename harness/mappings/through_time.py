"""One FactorTopy for all snapshots of a run, in which only the layer selectors change with time.

Separate fits of two snapshots differ in everything: bottlenecks, weights, places, layers. Most of their
distance is that of two fits of one snapshot. Here bottlenecks, weights, places and scales are shared, and
each snapshot t has layer logits and a gain of its own, both smooth functions of the voxel's coordinates:

    logits_t(n) = (W + Δ_t) h(n),    y_t(n) = exp(γ_t · h(n)) · FactorTopy(n; logits_t)

h is the last hidden layer of the layer selector's network; Δ_t and γ_t start at 0. The gain lets predictions
shrink where a snapshot has lost signal; otherwise the layer distribution would have to. Refits of step 0 pose
as snapshots: each has its own sample of the stimuli, Δ and γ, so that their distances are what snapshots show
if nothing has changed.

Fine-tuning turns the axes of a layer's tokens, which is no rewiring. So every snapshot's tokens are centred
and scaled in their own frame (`harness.tokens.frame`), then rotated onto step 0's.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from harness.config import ThroughTimeConfig
from harness.mappings.data import (
    FitData,
    FitOptions,
    Member,
)
from harness.mappings.factortopy.fit import (
    LAYER_RATE,
    mapping_of,
)
from harness.mappings.factortopy.model import (
    HIDDEN,
    FactorTopy,
)
from harness.mappings.factortopy.selectors import (
    EVERY,
    SelectorTensors,
    take_voxels,
)
from harness.mappings.mapping import Mapping
from harness.mappings.training import (
    CHECKS,
    FitDivergedError,
    FittedModel,
    cut_voxels,
    draw_batches,
    optimize,
    predict,
)
from harness.mappings.voxel_scores import score
from harness.storage import progress_bar
from harness.tokens import (
    LayerTokens,
    StandardTokens,
    standardize_tokens,
)

BATCH = 128  # stimuli at once when rotations are computed

Rotations = tuple[Float[Tensor, "_ _"], ...]
"""For each layer of a snapshot, the rotation R of its channels onto step 0's: x R resembles step 0's x."""


class ThroughTime(nn.Module):
    """A FactorTopy of several members that differ in their layer logits and in a gain.

    Parameters
    ----------
    base : FactorTopy
        What all members share.
    rotations : sequence of Rotations
        One per member.
    """

    def __init__(self, base: FactorTopy, rotations: Sequence[Rotations]) -> None:
        super().__init__()
        self.base, self.rotations = base, rotations
        n_layers = len(base.local_bottleneck)
        self.layer_change = nn.Parameter(torch.zeros(len(rotations), n_layers, HIDDEN))
        self.log_gain = nn.Parameter(torch.zeros(len(rotations), HIDDEN))

    def change(
        self, member: int, features: Float[Tensor, "n_voxels n_hidden"]
    ) -> Float[Tensor, "n_voxels n_layers"]:
        """Compute a member's change of the layer logits, from `FactorTopy.layer_features`."""
        return features @ self.layer_change[member].T

    def selectors(
        self, member: int, features: Float[Tensor, "n_voxels n_hidden"], voxels: slice = EVERY
    ) -> SelectorTensors:
        """Compute a member's selectors of some voxels, from their `FactorTopy.layer_features`."""
        logits = self.base.layer_selector[-1](features) + self.change(member, features)
        return self.base.selectors_at(logits, voxels)

    def forward(
        self,
        member: int,
        stimuli: LayerTokens,
        selectors: SelectorTensors,
        log_gain: Float[Tensor, " n_voxels"],
        voxels: slice = EVERY,
    ) -> Float[Tensor, "n_images n_voxels"]:
        """Predict some voxels from a member's tokens, without rotating these."""
        inputs = (stimuli.local, stimuli.global_, selectors, voxels)
        found = functional_call(self.base, self._bottlenecks(member), inputs)
        bias = take_voxels(self.base.bias, voxels)
        return bias + (found - bias) * log_gain.exp()

    def alone(self, member: int) -> FactorTopy:
        """Return a member as a FactorTopy of its own, with its rotation, change and gain in its weights."""
        with torch.no_grad():
            found = copy.deepcopy(self.base)
            gain = (self.base.layer_features() @ self.log_gain[member]).exp()
            found.weight.mul_(gain[:, None])
            found.layer_weight.add_(self.layer_change[member])
            for name, weight in self._bottlenecks(member).items():
                found.get_parameter(name).copy_(weight)
        return found

    def _bottlenecks(self, member: int) -> dict[str, Tensor]:
        # B (R'x) = (B R') x: a product with D rows instead of one with every token
        return {
            f"{part}.{layer}.weight": getattr(self.base, part)[layer].weight @ rotation.T
            for part in ("local_bottleneck", "global_bottleneck")
            for layer, rotation in enumerate(self.rotations[member])
        }


def fit_alone(data: FitData, config: ThroughTimeConfig, options: FitOptions) -> Mapping:
    """Fit a single snapshot: `fit_through_time` of one member."""
    return fit_through_time([Member(data)], config, options)[0]


def fit_through_time(
    members: Sequence[Member], config: ThroughTimeConfig, options: FitOptions
) -> list[Mapping]:
    """Fit all members jointly, each on its own sample of the training stimuli.

    Every step takes a batch of one member. Each member has ``mapping.steps`` steps, in an order drawn anew
    for each round. Losses, rates and schedule are FactorTopy's, and the loss has two more terms:

        change_penalty · mean over voxels and layers of δ_t² + (δ_t - δ_{t-1})²
        gain_penalty · mean over voxels of (γ_t · h)²

    with δ_t = Δ_t h, and the second square only where there is a snapshot before. Step 0 and its refits are
    therefore drawn alike, and a snapshot is pulled towards step 0 at least as much as they are.

    Parameters
    ----------
    members : sequence of Member
        The first is step 0, whose channels the others are rotated onto.
    config : ThroughTimeConfig
    options : FitOptions

    Returns
    -------
    list of Mapping, one per member
        Each is a FactorTopy of its own: it reads its snapshot's tokens in their own frame.

    Raises
    ------
    FitDivergedError
        If the loss is no longer finite.
    """
    first, device = members[0].data, options.device
    generator = torch.Generator().manual_seed(options.seed)
    train = torch.from_numpy(first.split.train)
    tokens = _standardize(members, config, device)
    shared = {
        id(member.data.responses): torch.as_tensor(member.data.responses, dtype=torch.float32, device=device)
        for member in members
    }
    targets = [shared[id(member.data.responses)] for member in members]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        base = FactorTopy(
            torch.as_tensor(first.coords, dtype=torch.float32),
            torch.as_tensor(first.bounding_box, dtype=torch.float32),
            [layer.shape[1] for layer in tokens[0].global_],
            config.n_channels,
        )
    with torch.no_grad():
        base.bias.copy_(targets[0][train.to(targets[0].device)].mean(dim=0))
    base = base.to(device)
    turned: dict[int, Rotations] = {}
    for one in tokens:  # refits share their tokens with step 0
        if id(one) not in turned:
            other = config.rotated and one is not tokens[0]
            turned[id(one)] = rotate_onto(tokens[0], one, train) if other else _no_rotation(one)
    model = ThroughTime(base, [turned[id(one)] for one in tokens]).to(device)
    samples = [
        _draw_sample(torch.from_numpy(member.data.split.train), options.bootstrap, generator)
        for member in members
    ]
    _train(model, members, tokens, targets, samples, config, generator, options.progress)
    mappings = []
    for place, member in enumerate(members):
        alone = model.alone(place)
        held_out = member.data.split.held_out
        rows = torch.from_numpy(held_out)
        guess = predict(alone, tokens[place], rows, config.batch_size, config.voxels_per_pass)
        scores = score(guess, np.asarray(member.data.responses)[held_out])
        fitted = FittedModel(alone, tokens[place], *scores, config.steps)
        mappings.append(mapping_of(fitted, member.data.tokens.layers, config.family))
    return mappings


def _draw_sample(train: Tensor, bootstrap: bool, generator: torch.Generator) -> Tensor:
    return train[torch.randint(len(train), (len(train),), generator=generator)] if bootstrap else train


def _standardize(
    members: Sequence[Member], config: ThroughTimeConfig, device: str | torch.device
) -> list[StandardTokens]:
    """Standardise tokens that are not yet; members that share tokens share the result."""
    train = torch.from_numpy(members[0].data.split.train)
    found: dict[int, StandardTokens] = {}
    for member in members:
        tokens = member.data.tokens
        if isinstance(tokens, StandardTokens):
            found[id(tokens)] = tokens
        elif id(tokens) not in found:
            found[id(tokens)] = standardize_tokens(tokens, train, config.token_size, device)
    return [found[id(member.data.tokens)] for member in members]


def _no_rotation(tokens: StandardTokens) -> Rotations:
    return tuple(torch.eye(layer.shape[1], device=tokens.device) for layer in tokens.global_)


def rotate_onto(target: StandardTokens, tokens: StandardTokens, rows: Tensor) -> Rotations:
    """Find each layer's rotation of `tokens` that brings them closest to `target` over some stimuli.

    The orthogonal Procrustes problem (Schönemann 1966, Psychometrika 31:1): R = UV' with USV' = X'Y, summed
    over local and global tokens, each as a mean over its tokens.
    """
    products = [torch.zeros(n, n, device=tokens.device) for n in (len(x[0]) for x in tokens.global_)]
    parts = rows.split(BATCH)
    for ours, theirs in zip(tokens.stream(parts), target.stream(parts), strict=True):
        for place, product in enumerate(products):
            product += ours.global_[place].T @ theirs.global_[place]
            x, y = (part.local[place].permute(0, 2, 3, 1).flatten(1, 2) for part in (ours, theirs))
            product += x.flatten(0, 1).T @ y.flatten(0, 1) / x.shape[1]
    rotations = []
    for product in products:
        left, _, right = torch.linalg.svd(product.double())
        rotations.append((left @ right).float())
    return tuple(rotations)


def _train(
    model: ThroughTime,
    members: Sequence[Member],
    tokens: Sequence[StandardTokens],
    targets: Sequence[Float[Tensor, "n_images n_voxels"]],
    samples: Sequence[Tensor],
    config: ThroughTimeConfig,
    generator: torch.Generator,
    progress: str | None,
) -> None:
    base, n_steps = model.base, config.steps * len(members)
    # the regularizer decays over the same share of the fit as in a fit of one snapshot
    config = config.model_copy(
        update={"steps": n_steps, "regularization_steps": config.regularization_steps * len(members)}
    )
    rates = {
        base.weight: float(config.n_channels),
        base.layer_weight: LAYER_RATE,
        model.layer_change: LAYER_RATE,
    }
    optimizer, schedule = optimize(list(model.parameters()), rates, config)
    per_member = n_steps // len(members)
    batches = [iter(draw_batches(sample, config.batch_size, per_member, generator)) for sample in samples]
    rounds = [torch.randperm(len(members), generator=generator) for _ in range(per_member)]
    passes = cut_voxels(targets[0].shape[1], config.voxels_per_pass)
    check_every = -(-n_steps // CHECKS)
    bar = progress_bar(torch.cat(rounds).tolist(), progress)
    for step, member in enumerate(bar):
        batch = next(batches[member])
        stimuli, truth = tokens[member].take(batch), targets[member][batch.to(targets[member].device)]
        decay = config.regularization * max(1 - step / config.regularization_steps, 0)
        optimizer.zero_grad()
        loss = torch.zeros((), device=truth.device)
        for voxels in passes:
            features = base.layer_features(voxels)
            selectors = model.selectors(member, features, voxels)
            log_gain = features @ model.log_gain[member]
            error = F.smooth_l1_loss(
                model(member, stimuli, selectors, log_gain, voxels), truth[:, voxels], beta=config.beta
            )
            moved = model.change(member, features)
            penalty = config.gain_penalty * log_gain.square().mean()
            penalty = penalty + config.change_penalty * moved.square().mean()
            previous = members[member].previous
            if previous is not None:
                since = moved - model.change(previous, features)
                penalty = penalty + config.change_penalty * since.square().mean()
            share = len(features) / truth.shape[1]
            (share * (error + decay * base.regularizer(selectors) + penalty)).backward()
            loss += share * error.detach()
        optimizer.step()
        schedule.step()
        if (step + 1) % check_every == 0 or step + 1 == n_steps:
            if not torch.isfinite(loss):
                raise FitDivergedError(
                    f"mapping.lr: the fit diverged within {step + 1} steps at {config.lr:g}; lower mapping.lr"
                )
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    bar.close()
