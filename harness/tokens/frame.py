"""Standardised layer tokens, shared by all fits of a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from harness.storage import InputError
from harness.tokens.extraction import LayerTokens


@dataclass(frozen=True)
class TokenFrame:
    """A centre for every channel, and a scale each for the local and the global tokens of a layer.

    In residual networks, deep layers have much larger tokens than early ones. Without scaling, a layer
    selector would prefer them before it has learned anything, and more so after fine-tuning that only changes
    scales. One scale per layer keeps the directions of tokens.

    Attributes
    ----------
    local_centre, global_centre : tuples of float tensors [n_channels], one per layer
    local_scale, global_scale : float tensors [n_layers]
    """

    local_centre: tuple[Float[Tensor, " _"], ...]
    local_scale: Float[Tensor, " n_layers"]
    global_centre: tuple[Float[Tensor, " _"], ...]
    global_scale: Float[Tensor, " n_layers"]

    def apply(self, tokens: LayerTokens) -> LayerTokens:
        """Subtract the centre and divide by the scale."""
        return LayerTokens(
            tuple(
                (layer - centre[:, None, None].to(layer)) / scale.to(layer)
                for layer, centre, scale in zip(
                    tokens.local, self.local_centre, self.local_scale, strict=True
                )
            ),
            tuple(
                (layer - centre.to(layer)) / scale.to(layer)
                for layer, centre, scale in zip(
                    tokens.global_, self.global_centre, self.global_scale, strict=True
                )
            ),
            tokens.layers,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name, for `from_arrays`."""
        parts: dict[str, Tensor] = {"local_scale": self.local_scale, "global_scale": self.global_scale}
        for name in ("local_centre", "global_centre"):
            parts |= {f"{name}.{place}": centre for place, centre in enumerate(getattr(self, name))}
        return {name: part.cpu().numpy() for name, part in parts.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> TokenFrame:
        """Rebuild the frame from `arrays`."""
        parts = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        layers = range(len(parts["local_scale"]))
        return cls(
            tuple(parts[f"local_centre.{place}"] for place in layers),
            parts["local_scale"],
            tuple(parts[f"global_centre.{place}"] for place in layers),
            parts["global_scale"],
        )


@dataclass(frozen=True)
class StandardTokens(LayerTokens):
    """Standardised tokens, stored in any precision and place, and read as float32 on a device.

    Attributes
    ----------
    frame : TokenFrame
        Centres and scales that were applied.
    device : torch.device
        Device to read them on.
    fetched_ahead : bool
        Whether `stream` fetches a batch while the previous one is used, for tokens off the device.
    """

    frame: TokenFrame
    device: torch.device
    fetched_ahead: bool = False

    def take(
        self, indices: Sequence[int] | Int[np.ndarray, " n_taken"] | Int[Tensor, " n_taken"]
    ) -> LayerTokens:
        """Return the tokens of some images, in order, as float32 on the device."""
        if gathers_together(self.local[0].device):
            local, global_ = one_array(self.local), one_array(self.global_)
            if local is not None and global_ is not None:
                rows = torch.as_tensor(indices, dtype=torch.long, device=local.device)
                local, global_ = (self._hand_over(all_.index_select(1, rows)) for all_ in (local, global_))
                return LayerTokens(tuple(local.unbind()), tuple(global_.unbind()), self.layers)
        taken = super().take(indices)
        return LayerTokens(
            tuple(self._hand_over(layer) for layer in taken.local),
            tuple(self._hand_over(layer) for layer in taken.global_),
            taken.layers,
        )

    def stream(self, batches: Iterable[Int[Tensor, " _"]]) -> Iterator[LayerTokens]:
        """Yield the result of `take` for each batch."""
        if not self.fetched_ahead:
            yield from map(self.take, batches)
            return
        with ThreadPoolExecutor(1) as worker:
            ahead: Future[LayerTokens] | None = None
            for batch in batches:
                following = worker.submit(self.take, batch)
                if ahead is not None:
                    yield ahead.result()
                ahead = following
            if ahead is not None:
                yield ahead.result()

    def _hand_over(self, layer: Tensor) -> Tensor:
        if self.device.type == "cuda" and layer.device.type == "cpu":
            # copies from pinned memory overlap with computation; a cast before the copy would not be pinned
            layer = layer.pin_memory().to(self.device, non_blocking=True)
        return layer.to(self.device, torch.float32, non_blocking=True)


def gathers_together(device: torch.device) -> bool:
    """Whether `StandardTokens.take` gathers all layers in one operation from tokens on this device."""
    return device.type == "cuda"


def one_array(layers: Sequence[Tensor]) -> Float[Tensor, "n_layers ..."] | None:
    """Return the array whose parts the layers are, without a copy; None if they are not in one."""
    first = layers[0]
    step = first.numel()
    for place, layer in enumerate(layers):
        same = layer.shape == first.shape and layer.stride() == first.stride() and layer.dtype == first.dtype
        # addresses of storages rather than of data, which tensors without data lack
        same = same and layer.untyped_storage()._cdata == first.untyped_storage()._cdata
        if not same or layer.storage_offset() != first.storage_offset() + place * step:
            return None
    return first.as_strided((len(layers), *first.shape), (step, *first.stride()), first.storage_offset())


def measure_frame(tokens: LayerTokens) -> TokenFrame:
    """Measure the frame that gives tokens mean 0 per channel and mean square 1 per layer.

    A layer that is constant over images keeps scale 1: it becomes zero, not 0/0.
    """
    centres, scales = zip(*map(_measure, (*tokens.local, *tokens.global_)), strict=True)
    n_layers = len(tokens.layers)
    return TokenFrame(
        centres[:n_layers],
        torch.stack(scales[:n_layers]),
        centres[n_layers:],
        torch.stack(scales[n_layers:]),
    )


def _measure(layer: Float[Tensor, "n_images n_channels ..."]) -> tuple[Tensor, Tensor]:
    axes = [axis for axis in range(layer.ndim) if axis != 1]
    centre = layer.mean(dim=axes, keepdim=True)
    mean_square = (layer - centre).square().mean()
    return centre.flatten(), torch.where(mean_square > 0, mean_square.sqrt(), 1.0)


def standardize_tokens(
    tokens: LayerTokens, train: Int[Tensor, " n_train"], token_size: int, device: str | torch.device
) -> StandardTokens:
    """Resize local tokens (bilinear) and standardise all by the training stimuli.

    `harness.tokens.store` does the same while it computes tokens, without holding them twice.

    Returns
    -------
    StandardTokens, float32 on `device`, local tokens in channels-last memory

    Raises
    ------
    InputError
        If tokens are not finite.
    """
    check_finite(tokens)
    resized_local = []
    for layer in tokens.local:
        resized = layer.to(device, torch.float32)
        if resized.shape[2:] != (token_size, token_size):
            resized = F.interpolate(resized, (token_size, token_size), mode="bilinear", align_corners=False)
        resized_local.append(resized)
    whole = tuple(layer.to(device, torch.float32) for layer in tokens.global_)
    resized_tokens = LayerTokens(tuple(resized_local), whole, tokens.layers)
    frame = measure_frame(resized_tokens.take(train))
    standard = frame.apply(resized_tokens)
    local = tuple(layer.contiguous(memory_format=torch.channels_last) for layer in standard.local)
    global_ = standard.global_
    if gathers_together(local[0].device) and len({layer.shape for layer in local}) == 1:
        local = tuple(torch.stack([layer.movedim(1, -1) for layer in local]).movedim(-1, 2).unbind())
        global_ = tuple(torch.stack(global_).unbind())
    return StandardTokens(
        local,
        global_,
        tokens.layers,
        frame,
        torch.device(device),
    )


def check_finite(tokens: LayerTokens) -> None:
    """Raise an `InputError` that names a layer with tokens that are not finite."""
    for name, local, global_ in zip(tokens.layers, tokens.local, tokens.global_, strict=True):
        if not (torch.isfinite(local).all() and torch.isfinite(global_).all()):
            raise InputError(f"tokens of layer {name!r} hold values that are not finite")
