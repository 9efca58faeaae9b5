"""Speed of this machine: passes of untrained networks and a short fit of noise."""

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
    Split,
    fit_mapping,
)
from harness.studies.costs import (
    Speed,
    training_bytes,
)
from harness.tokens import LayerTokens

N_IMAGES = 4
FIT_STEPS = (2, 8)
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
ROOM = 1.5  # leaves memory for the activations of `N_IMAGES`


def choose_device() -> torch.device:
    """Return the device that a run would use."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fits_in_memory(n_parameters: int, n_trained: int, device: torch.device) -> bool:
    """Check whether the free memory is enough to train a network for a moment."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return ROOM * training_bytes(n_parameters, n_trained) < free


def clock(work: Callable[[], object], device: torch.device, repeats: int = 2) -> float:
    """Return the shortest duration of some repeats in seconds, after a warm-up."""
    found = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - started)
    return min(found[1:])


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

    seconds = {
        "forward": clock(forward, device) / N_IMAGES,
        "train": clock(train, device) / N_IMAGES,
        "update": clock(optimizer.step, device),
    }
    return Speed(**seconds)


def measure_fit(
    widths: Sequence[int], n_voxels: int, config: MappingConfig, device: torch.device
) -> tuple[float, float] | None:
    """Time a step of a fit and a fit's overhead, in seconds; None: the family is solved in closed form.

    Two short fits of noise give the line that longer fits are assumed to follow.
    """
    if not isinstance(config, TrainedMappingConfig):
        return None
    rng = np.random.default_rng(0)
    n_stimuli, edge = 2 * config.batch_size, config.token_size
    tokens = LayerTokens(
        tuple(torch.randn(n_stimuli, width, edge, edge) for width in widths),
        tuple(torch.randn(n_stimuli, width) for width in widths),
        tuple(f"blocks.{place}" for place in range(len(widths))),
    )
    coords = rng.uniform(-1, 1, (n_voxels, 3)).astype(np.float32)
    responses = rng.standard_normal((n_stimuli, n_voxels)).astype(np.float32)
    box = np.array([[-1.0] * 3, [1.0] * 3], dtype=np.float32)
    n_train = n_stimuli - n_stimuli // 5
    split = Split(np.arange(n_train), np.arange(n_train, n_stimuli))
    data = FitData(tokens, responses, coords, box, split)

    def fit(steps: int) -> float:
        changed = {"steps": steps, "validation": 0.0, "patience": None, "warm_steps": None}
        short = config.model_copy(update=changed)
        started = time.perf_counter()
        fit_mapping(data, short, seed=0, bootstrap=config.bootstrap, device=device)
        return time.perf_counter() - started

    fit(1)
    few, many = (fit(steps) for steps in FIT_STEPS)
    step = max(many - few, 0.0) / (FIT_STEPS[1] - FIT_STEPS[0])
    return step, max(few - FIT_STEPS[0] * step, 0.0)
