"""Operations that a step asks of a device, and CUDA tensors without a GPU.

`gpu_check.py` uses both; tests use them without a GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from plain_factortopy import predict_plainly, select_plainly
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from harness.mappings import training
from harness.mappings.factortopy import sampling, selectors
from harness.mappings.factortopy.model import FactorTopy
from harness.mappings.factortopy.position_encoding import position_encoding
from harness.tokens import frame

WAYS = ("by cell", "in tiles", "grid_sample")
Move = Callable[[Any], Any]
"""Moves a tensor or a module to a device."""


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.found[func.name().removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))


def count_operations(function: Callable[[], object]) -> Counter[str]:
    """Count operations by name, forward and backward; those that return views take no time on a device."""
    with _Counting() as counting:
        function()
    return counting.found


@contextmanager
def pretended(device: str = "cuda") -> Iterator[Move]:
    """Run code on tensors without values: shapes, types and devices are checked, nothing is computed.

    Yields a function that moves what is built before to the pretended device. A read by the host, such as
    ``tolist``, raises an error. Without a CUDA driver, torch cannot run backward passes on "cuda", even
    pretended ones; run these on "cpu".
    """
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:

        def move(given: Any) -> Any:
            if isinstance(given, nn.Module):
                for module in given.modules():
                    for name, part in module._parameters.items():
                        if part is not None:
                            module._parameters[name] = nn.Parameter(move(part).detach(), part.requires_grad)
                    for name, part in module._buffers.items():
                        if part is not None:
                            module._buffers[name] = move(part)
                return given
            return mode.from_tensor(given).to(device)

        yield move


@contextmanager
def ways_of_a_gpu(chosen: bool = True) -> Iterator[None]:
    """Take the ways of a GPU, whatever the device; those of a CPU with `chosen` False."""
    with ExitStack() as stack:
        for module, name in (
            (sampling, "uses_tiles"),
            (selectors, "uses_tiles"),
            (frame, "gathers_together"),
            (training, "steps_stay_on"),
        ):
            stack.enter_context(patch.object(module, name, lambda device: chosen))
        yield


@dataclass(frozen=True)
class Step:
    """A FactorTopy whose selectors are spread out, a batch of random tokens, and random responses.

    Attributes
    ----------
    model : FactorTopy
    encoding : float tensor [n_voxels, 192]
    local : float tensor [n_layers, n_images, width, n_tokens, n_tokens]
    global_ : float tensor [n_layers, n_images, width]
    truth : float tensor [n_images, n_voxels]
    """

    model: FactorTopy
    encoding: Tensor
    local: Tensor
    global_: Tensor
    truth: Tensor

    @classmethod
    def build(
        cls, n_voxels: int, n_layers: int, width: int, n_tokens: int, n_channels: int, n_images: int
    ) -> Step:
        """Draw everything on the CPU; the same whenever sizes are."""
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        coords, box = torch.rand(n_voxels, 3, generator=generator), torch.tensor([[0.0] * 3, [1.0] * 3])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = FactorTopy(coords, box, [width] * n_layers, n_channels)
        for network in (model.space_selector, model.layer_selector, model.scale_selector):
            nn.init.normal_(network[-1].weight, std=1.0, generator=generator)
        return cls(
            model,
            position_encoding(coords, box),
            draw(n_layers, n_images, n_tokens, n_tokens, width).movedim(-1, 2),
            draw(n_layers, n_images, width),
            draw(n_images, n_voxels),
        )

    def on(self, move: Move) -> Step:
        """Move everything to a device, the model in place."""
        return Step(*map(move, (self.model, self.encoding, self.local, self.global_, self.truth)))

    def loss(self, way: str) -> Tensor:
        """Compute the loss in one of `WAYS`."""
        local, global_ = self.local.unbind(), self.global_.unbind()
        if way == "grid_sample":
            chosen = select_plainly(self.model, self.encoding)
            prediction = predict_plainly(self.model, local, global_, chosen)
        else:
            with ways_of_a_gpu(way == "in tiles"):
                chosen = self.model.selectors()
                prediction = self.model(local, global_, chosen)
        return F.smooth_l1_loss(prediction, self.truth, beta=0.1) + 0.1 * self.model.regularizer(chosen)


def count_step(step: Step, way: str) -> Counter[str]:
    """Count the operations of a loss and its gradients."""
    step.model.zero_grad()
    return count_operations(lambda: step.loss(way).backward())
