"""Operations that a function asks of a device, and CUDA tensors without a GPU.

    python benchmarks/operations.py

prints how many operations a FactorTopy step takes: cell by cell as on a CPU, in tiles as on a GPU, and by
``grid_sample``. Operations on views take no time on the device and are not counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from plain_factortopy import predict_plainly, select_plainly
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from harness.mappings.factortopy import sampling
from harness.mappings.factortopy.model import FactorTopy

WAYS = ("by cell", "in tiles", "grid_sample")


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.found[func.name().removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))


def count_operations(function: Callable[[], object]) -> Counter[str]:
    """Count operations by name, forward and backward, without those that return views."""
    with _Counting() as counting:
        function()
    return counting.found


@contextmanager
def pretended_cuda() -> Iterator[Callable[[Any], Any]]:
    """Run code on CUDA tensors without values: shapes, types and devices are checked, nothing is computed.

    Yields a function that moves a tensor, the tensors of a list or tuple, or a module (in place) to the
    pretended device. A read by the host, such as ``tolist``, raises an error.
    """
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:

        def move(given: Any) -> Any:
            if isinstance(given, nn.Module):
                for module in given.modules():
                    for name, part in module._parameters.items():
                        if part is not None:
                            module._parameters[name] = nn.Parameter(move(part.data), part.requires_grad)
                    for name, part in module._buffers.items():
                        if part is not None:
                            module._buffers[name] = move(part)
                return given
            if isinstance(given, (list, tuple)):
                return type(given)(map(move, given))
            return mode.from_tensor(given).to("cuda") if isinstance(given, Tensor) else given

        yield move


def build_step(
    way: str,
    n_voxels: int,
    n_layers: int,
    width: int,
    n_tokens: int,
    n_channels: int,
    batch: int,
    move: Callable[[Any], Any] = lambda given: given,
    stacked: bool = False,
) -> tuple[FactorTopy, Callable[[], Tensor]]:
    """Build a FactorTopy with spread-out selectors, and a function that returns the loss of random tokens.

    Parameters
    ----------
    way : str
        One of `WAYS`. "in tiles" and "by cell" differ by device only; see `sampled`.
    n_voxels, n_layers, width, n_tokens, n_channels, batch : int
        Tokens are [batch, width, n_tokens, n_tokens] per layer.
    move : function
        Moves the model and its inputs to a device.
    stacked : bool
        Whether the tokens of all layers come as one array.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    coords = torch.rand(n_voxels, 3, generator=generator) * 100
    box = torch.tensor([[0.0] * 3, [100.0] * 3])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = FactorTopy(coords, box, [width] * n_layers, n_channels)
    for network in (model.space_selector, model.layer_selector, model.scale_selector):
        torch.nn.init.normal_(network[-1].weight, std=0.3, generator=generator)
    encoding = model.encoding
    local: Any = [draw(batch, n_tokens, n_tokens, width).permute(0, 3, 1, 2) for _ in range(n_layers)]
    global_: Any = [draw(batch, width) for _ in range(n_layers)]
    if stacked:
        local, global_ = torch.stack(local), torch.stack(global_)
    truth = draw(batch, n_voxels)
    model, encoding, truth = move(model), move(encoding), move(truth)
    local, global_ = move(local), move(global_)

    def loss() -> Tensor:
        if way == "grid_sample":
            selectors = select_plainly(model, encoding)
            prediction = predict_plainly(model, local, global_, selectors)
        else:
            selectors = model.selectors()
            prediction = model(local, global_, selectors)
        return F.smooth_l1_loss(prediction, truth, beta=0.1) + 0.1 * model.regularizer(selectors)

    return model, loss


@contextmanager
def sampled(way: str) -> Iterator[None]:
    """Sample "by cell" or "in tiles" whatever the device; any other way changes nothing."""
    chosen = sampling.uses_tiles
    if way in WAYS[:2]:
        sampling.uses_tiles = lambda device: way == "in tiles"
    try:
        yield
    finally:
        sampling.uses_tiles = chosen


def main() -> None:
    """Print the counts of a step of 37,984 voxels, 12 layers, 8 × 8 tokens and the fit's default settings."""
    found = {}
    for way in WAYS:
        with sampled(way):
            # few channels in and out: they change no count
            stacked = way == "in tiles"
            _, loss = build_step(way, 37_984, 12, 8, 8, 32, 64, stacked=stacked)
            counts = count_operations(lambda loss=loss: loss().backward())
        found[way] = {"operations": counts.total(), "most": dict(counts.most_common(5))}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
