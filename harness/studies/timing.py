"""Speed of this machine: passes of untrained networks, and short fits and evidence of noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import psutil
import torch
from torch.nn import functional

from harness.backbones import load_backbone
from harness.config import (
    AnyBackboneConfig,
    EvidenceConfig,
    FactorTopyConfig,
    FullConfig,
    MappingConfig,
    MethodConfig,
    TrainedMappingConfig,
)
from harness.finetuning import (
    METHODS,
    tune,
)
from harness.mappings import (
    FitData,
    FitOptions,
    Region,
    Split,
    fit_mapping,
    fit_reference_ridge,
    measure_evidence,
)
from harness.studies.costs import (
    FitSpeed,
    Speed,
    training_bytes,
)
from harness.tokens import (
    LayerTokens,
    standardize_tokens,
)

N_IMAGES = 4
FIT_STEPS = (2, 8)
FIT_STIMULI = (128, 384)
MOST_JUDGED = 25
"""Regions that are assumed where their number is not known before the brain is read."""
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
ROOM = 1.5  # leaves memory for the activations of `N_IMAGES`


def choose_device() -> torch.device:
    """Return the device that a run would use."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fits_in_memory(n_parameters: int, n_trained: int, device: torch.device) -> bool:
    """Check whether the free memory is enough to train a network for a moment."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return ROOM * training_bytes(n_parameters, n_trained) < free


def clock(work: Callable[[], object], device: torch.device, repeats: int = 2, warm_ups: int = 1) -> float:
    """Return the shortest duration of some repeats in seconds, after a warm-up.

    With a single thread on a CPU, that is processor time: whatever else the machine does is left out.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    now, found = time.process_time if alone else time.perf_counter, []
    for _ in range(warm_ups + repeats):
        started = now()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(now() - started)
    return min(found[warm_ups:])


def measure_network(
    config: AnyBackboneConfig, method: MethodConfig, precision: str, device: torch.device
) -> Speed:
    """Time forward passes and training steps of a network with random weights.

    Methods that train the text tower are timed without it: all of the image tower and a head.
    """
    if config.library == "open_clip":
        config = config.model_copy(update={"text": False})
    method = FullConfig() if METHODS[method.name].needs_texts else method
    backbone = load_backbone(config, pretrained=False)
    model = tune(backbone, 10, method, 0).to(device).train()
    size = backbone.preprocessing.size
    images = torch.rand(N_IMAGES, 3, size, size, device=device)
    labels = torch.zeros(N_IMAGES, dtype=torch.long, device=device)
    optimizer = torch.optim.AdamW([part for part in model.parameters() if part.requires_grad], lr=1e-6)

    def autocast() -> AbstractContextManager[object]:
        return torch.autocast(device.type, DTYPES[precision]) if precision in DTYPES else nullcontext()

    @torch.no_grad()
    def forward() -> None:
        with autocast():
            model.backbone.tokens(images)

    def train() -> None:
        with autocast():
            loss = functional.cross_entropy(model(images).float(), labels)
        loss.backward()

    return Speed(
        forward=clock(forward, device) / N_IMAGES,
        train=clock(train, device) / N_IMAGES,
        update=clock(optimizer.step, device),
    )


def measure_fit(
    widths: Sequence[int], n_voxels: int, config: MappingConfig, device: torch.device
) -> FitSpeed | None:
    """Time the parts of a fit and the ridge beside it; None: the family is solved in closed form.

    Short fits of noise differ in their steps, their stimuli, and whether they compare layers in closed form.
    The lines through them are what longer fits are assumed to follow.
    """
    if not isinstance(config, TrainedMappingConfig):
        return None
    changed: dict[str, object] = {"validation": 0.0, "patience": None, "warm_steps": None}
    few, many = FIT_STIMULI
    of_few, of_many = (make_noise(n, widths, n_voxels, config, device) for n in FIT_STIMULI)

    def fit(data: FitData, steps: int, **other: object) -> float:
        return time_fit(data, config.model_copy(update={**changed, "steps": steps, **other}), device)

    fit(of_few, 1)
    short, long = (fit(of_few, steps) for steps in FIT_STEPS)
    step = max(long - short, 0.0) / (FIT_STEPS[1] - FIT_STEPS[0])
    growth = plain = max(fit(of_many, FIT_STEPS[0]) - short, 0.0) / (many - few)
    if isinstance(config, FactorTopyConfig):
        bare = {"anchor": "none", "start": "centre"}
        bare_few, bare_many = (fit(data, FIT_STEPS[0], **bare) for data in (of_few, of_many))
        plain = min(max(bare_many - bare_few, 0.0) / (many - few), growth)
    start = max(short - FIT_STEPS[0] * step - growth * few, 0.0)
    ridge = time_ridge(of_many, device)
    # it reads the mean and the global token of every layer
    return FitSpeed(step, start, plain, growth - plain, ridge, many, 2 * sum(widths))


def time_fit(data: FitData, config: MappingConfig, device: torch.device) -> float:
    """Time a fit, in seconds."""

    def fit() -> object:
        return fit_mapping(data, config, seed=0, bootstrap=config.bootstrap, device=device)

    return clock(fit, device, 1, 0)


def time_ridge(data: FitData, device: torch.device) -> float:
    """Time the ridge regression beside a mapping, in seconds."""
    return clock(lambda: fit_reference_ridge(data, FitOptions(0, True, device)), device, 1)


def make_noise(
    n_stimuli: int, widths: Sequence[int], n_voxels: int, config: TrainedMappingConfig, device: torch.device
) -> FitData:
    """Make standardised tokens of layers of some widths, and responses, all noise."""
    rng, edge = np.random.default_rng(0), config.token_size
    tokens = LayerTokens(
        tuple(torch.randn(n_stimuli, width, edge, edge) for width in widths),
        tuple(torch.randn(n_stimuli, width) for width in widths),
        tuple(f"blocks.{place}" for place in range(len(widths))),
    )
    n_train = n_stimuli - n_stimuli // 5
    split = Split(np.arange(n_train), np.arange(n_train, n_stimuli))
    # runs standardise a snapshot's tokens once for all its fits
    standard = standardize_tokens(tokens, torch.arange(n_train), edge, device)
    coords = rng.uniform(-1, 1, (n_voxels, 3)).astype(np.float32)
    responses = rng.standard_normal((n_stimuli, n_voxels)).astype(np.float32)
    box = np.array([[-1.0] * 3, [1.0] * 3], dtype=np.float32)
    return FitData(standard, responses, coords, box, split)


def measure_layer_evidence(
    widths: Sequence[int],
    size: tuple[int, int],
    token_size: int,
    config: EvidenceConfig,
    device: torch.device,
) -> float:
    """Time the evidence of all layers, in seconds: that of one layer of mean width, times their number.

    Parameters
    ----------
    size : (n_stimuli, n_voxels) of a subject
    """
    n_stimuli, n_voxels = min(size[0], config.n_stimuli), min(size[1], MOST_JUDGED * config.n_voxels)
    n_features = round(sum(widths) / len(widths) * (1 + min(config.pool, token_size) ** 2))
    features, responses = torch.randn(n_stimuli, n_features), torch.randn(n_stimuli, n_voxels)
    layer, targets = features.to(device), responses.to(device)
    regions = [Region("all", np.arange(n_voxels))]
    return len(widths) * clock(lambda: measure_evidence([layer], targets, regions, [1.0]), device, 1)
