"""Optimizer steps on a GPU without a word from the host: rows and decay wait there, a graph replays the step.

A CUDA graph holds the operations of one step with their addresses. What changes from step to step must lie
on the device, so the rows of all batches and the weights of the regularizer are copied there once, and the
step itself counts where it is.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness.tokens import LayerTokens, StandardTokens

log = logging.getLogger(__name__)

WARM_UP = 3  # steps before the capture: libraries choose their kernels and allocate

Descend = Callable[[LayerTokens, Float[Tensor, "n_images n_voxels"], "float | Tensor"], Float[Tensor, ""]]
"""Adds a batch's gradients to the parameters and returns its loss; the number weighs the regularizer."""
Replay = Callable[[], Tensor]


def steps_stay_on(device: torch.device) -> bool:
    """Whether a fit whose tokens and responses lie on this device runs there without the host."""
    return device.type == "cuda"


def take_device_steps(
    descend: Descend,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    tokens: StandardTokens,
    targets: Float[Tensor, "n_images n_voxels"],
    batches: Sequence[Int[Tensor, " n_rows"]],
    decays: Sequence[float],
) -> Iterator[Float[Tensor, ""]]:
    """Take a step per batch and yield its loss, which the next step may overwrite.

    Parameters
    ----------
    descend : function
    optimizer : Optimizer
        With capturable steps, if they are to be captured.
    schedule : LRScheduler
    tokens : StandardTokens
    targets : float tensor [n_images, n_voxels]
        On the tokens' device.
    batches : sequence of int tensors, all of one length
    decays : sequence of float
        Weight of the regularizer at every step.
    """
    device = targets.device
    rows = torch.stack(list(batches)).to(device)
    weights = torch.tensor(decays, dtype=torch.float32).to(device)
    place = torch.zeros(1, dtype=torch.long, device=device)

    def step() -> Tensor:
        chosen = rows.index_select(0, place).squeeze(0)
        decay = weights.index_select(0, place).squeeze(0)
        optimizer.zero_grad()
        loss = descend(tokens.take(chosen), targets.index_select(0, chosen), decay)
        optimizer.step()
        place.add_(1)
        return loss

    replayed = Replayed(step)
    for _ in batches:
        loss = replayed()
        schedule.step()
        yield loss


class Replayed:
    """A step that runs `WARM_UP` times, is then captured, and replayed from there on.

    If it cannot be captured, it runs on one operation after the other, to the same result.

    Parameters
    ----------
    step : function
        Returns a tensor.
    capture : function of the step
        Returns the function that replays it. Capturing takes no step.

    Attributes
    ----------
    reason : str or None
        Why there is no graph, once that is known.
    """

    def __init__(self, step: Replay, capture: Callable[[Replay], Replay] | None = None) -> None:
        self.reason: str | None = None
        self._step, self._capture = step, capture or capture_graph
        self._taken = 0
        self._replay: Replay | None = None
        self._stream: torch.cuda.Stream | None = None

    def __call__(self) -> Tensor:
        """Take a step, and return what it returned; the next step may overwrite that."""
        if self._taken == WARM_UP and self._replay is None and self.reason is None:
            try:
                self._replay = self._capture(self._step)
            except (RuntimeError, AssertionError) as error:
                self.reason = " ".join(str(error).split())[:200]
                log.warning("a step was not captured as a CUDA graph, steps run slower: %s", self.reason)
        self._taken += 1
        if self._replay is not None:
            return self._replay()
        return self._run()

    def _run(self) -> Tensor:
        """Run the step on a stream of its own, as steps before a capture must; without a GPU, just run it."""
        with warnings.catch_warnings():
            # torch warns of capturable optimizers outside captures
            warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")
            if not torch.cuda.is_available():
                return self._step()
            # one stream, because each keeps the memory that it frees
            self._stream = self._stream or torch.cuda.Stream()
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                found = self._step()
            current.wait_stream(self._stream)
            return found


def capture_graph(step: Replay) -> Replay:
    """Capture a step as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    # other threads, such as those that log, may use the device meanwhile
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        found = step()

    def replay() -> Tensor:
        graph.replay()
        return found

    return replay
