"""Any `torch.nn.Module` with named layers as a backbone, read through forward hooks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness.backbones.backbone import (
    Backbone,
    Preprocessing,
    split_tokens,
)
from harness.storage import (
    InputError,
    unknown_name,
)

Layout = Literal["tokens", "channels_first", "channels_last"]
SHAPES = {
    "tokens": "[n, tokens, channels]",
    "channels_first": "[n, channels, height, width]",
    "channels_last": "[n, height, width, channels]",
}


@dataclass(frozen=True)
class Output:
    """How to read a layer's output.

    Attributes
    ----------
    layout : str
    n_prefix : int
        Class and register tokens before the local ones.
    """

    layout: Layout
    n_prefix: int = 0

    def split(
        self, output: Float[Tensor, "n_images ..."]
    ) -> tuple[
        Float[Tensor, "n_images n_channels height width"],
        Float[Tensor, "n_images n_prefix n_channels"] | None,
    ]:
        """Local grid and prefix tokens."""
        if output.ndim == 2:
            return output[:, :, None, None], None
        if self.layout == "channels_first":
            return output, None
        if self.layout == "channels_last":
            return output.permute(0, 3, 1, 2), None
        local = output[:, self.n_prefix :]
        edge = math.isqrt(local.shape[1])
        grid = local.transpose(1, 2).unflatten(2, (edge, edge))
        return grid, output[:, : self.n_prefix] if self.n_prefix else None


class ModuleBackbone(Backbone):
    """A plain network; see `Backbone.from_module` for the parameters."""

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        preprocessing: Preprocessing,
        features: str | None = None,
        layout: Layout | None = None,
        prefix_tokens: int | None = None,
        class_token: bool = True,
    ) -> None:
        super().__init__(preprocessing, text=None)
        self.encoder = model
        self.layers = tuple(layers)
        self._features = features
        self._class_token = class_token
        known = [name for name, _ in model.named_modules() if name]
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise InputError(f"layers: found {list(self.layers)}, expected names of modules, each once")
        for name in (*self.layers, *([] if features is None else [features])):
            if name not in known:
                raise InputError(f"layers: {unknown_name(f'module of {type(model).__name__}', name, known)}")
        if layout is not None and layout not in SHAPES:
            raise unknown_name("layout", layout, SHAPES)
        result, outputs, self._depth_of_module = self._try_out()
        if layout is None:
            # where height equals channels, the other layers tell
            clear = {_square_axes(output) for output in outputs.values() if output.ndim == 4} - {None}
            layout = clear.pop() if len(clear) == 1 else None
        self._outputs = {
            name: _recognise(name, output, layout, prefix_tokens) for name, output in outputs.items()
        }
        self.widths = tuple(self._outputs[name].split(outputs[name])[0].shape[1] for name in self.layers)
        if features is not None:
            result = self._pool(outputs[features])
        if not isinstance(result, Tensor) or result.ndim != 2:
            found = list(result.shape) if isinstance(result, Tensor) else f"a {type(result).__name__}"
            raise InputError(
                f"features: the network returns {found}, expected [n_images, n_channels]; "
                "name the layer to average as features="
            )
        self.n_features = int(result.shape[1])

    def forward(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> Float[Tensor, "n_images n_channels"]:
        """Output of the network, or the mean of the local tokens of the features' layer."""
        if self._features is None:
            return self.encoder(images)
        with self._record([self._features]) as outputs:
            self.encoder(images)
        return self._pool(outputs[self._features])

    def tokens(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]]:
        """Local grid and global token of every layer."""
        with self._record(self.layers) as outputs:
            self.encoder(images)
        return self._split(outputs)

    def features_and_tokens(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> tuple[
        Float[Tensor, "n_images n_channels"],
        tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]],
    ]:
        """Features and tokens of one pass."""
        with self._record([*self.layers, *([] if self._features is None else [self._features])]) as outputs:
            result = self.encoder(images)
        features = result if self._features is None else self._pool(outputs[self._features])
        return features, self._split(outputs)

    def depths(self) -> dict[str, int]:
        """Depth of every parameter by name: 0 before the first layer, then by layer, last what follows."""
        return {name: self._depth(name) for name, _ in self.encoder.named_parameters()}

    def parameter_layers(self) -> dict[str, str]:
        """Layer of every parameter by name; ``stem`` before the first, ``top`` after the last."""
        names = ("stem", *self.layers, "top")
        return {name: names[depth] for name, depth in self.depths().items()}

    def _depth(self, parameter: str) -> int:
        # adapters add modules below those of the network: the nearest known one counts
        module = parameter.rpartition(".")[0]
        while module not in self._depth_of_module:
            module = module.rpartition(".")[0]
        return self._depth_of_module[module]

    def _split(
        self, outputs: Mapping[str, Tensor]
    ) -> tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]]:
        parts = [self._outputs[name].split(outputs[name]) for name in self.layers]
        prefixes = [prefix if self._class_token else None for _, prefix in parts]
        return split_tokens([grid for grid, _ in parts], prefixes)

    def _pool(self, output: Tensor) -> Float[Tensor, "n_images n_channels"]:
        assert self._features is not None
        return self._outputs[self._features].split(output)[0].mean(dim=(2, 3))

    @contextmanager
    def _record(self, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Keep the outputs of some modules while the network runs; of several calls, the last."""
        outputs: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                # copied: the network may go on to change it in place
                outputs[name] = _first_tensor(name, output).clone()

            return hook

        handles = [self.encoder.get_submodule(name).register_forward_hook(keep(name)) for name in set(names)]
        try:
            yield outputs
        finally:
            for handle in handles:
                handle.remove()
        missing = [name for name in names if name not in outputs]
        if missing:
            raise InputError(f"layers: {missing[0]} was not called as the network ran")

    def _try_out(self) -> tuple[Any, dict[str, Tensor], dict[str, int]]:
        """Run two blank images: the result, outputs by name, and the depth of every module that ran."""
        depths: dict[str, int] = {"": 0}
        done: list[str] = []

        def begin(name: str) -> Any:
            def hook(module: nn.Module, inputs: Any) -> None:
                within = [
                    place for place, layer in enumerate(self.layers, 1) if f"{name}.".startswith(f"{layer}.")
                ]
                # between two layers, a module belongs to the later one
                between = 0 if not done else min(len(done) + 1, len(self.layers) + 1)
                depths.setdefault(name, within[0] if within else between)

            return hook

        def end(name: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if name not in done:
                    done.append(name)

            return hook

        names = [*self.layers, *([] if self._features is None else [self._features])]
        # containers of layers say nothing of their parameters' depth
        containers = {
            layer[:place] for layer in self.layers for place, letter in enumerate(layer) if letter == "."
        }
        handles = [
            module.register_forward_pre_hook(begin(name))
            for name, module in self.encoder.named_modules()
            if name and name not in containers
        ]
        handles += [self.encoder.get_submodule(name).register_forward_hook(end(name)) for name in self.layers]
        training = self.encoder.training
        reference = next(self.encoder.parameters(), torch.zeros(()))
        size = self.preprocessing.size
        images = torch.zeros(2, 3, size, size, device=reference.device, dtype=reference.dtype)
        try:
            with torch.no_grad(), self._record(names) as outputs:
                result = self.encoder.eval()(images)
        except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
            if isinstance(error, InputError):
                raise
            detail = " ".join(str(error).split())[:200]
            raise InputError(
                f"image_size: the network cannot take images of {size} x {size} pixels ({detail})"
            ) from error
        finally:
            self.encoder.train(training)
            for handle in handles:
                handle.remove()
        if tuple(done) != self.layers:
            raise InputError(
                f"layers: found {', '.join(self.layers)}, expected them in the order in which they run: "
                f"{', '.join(done)}"
            )
        return result, outputs, depths


def _first_tensor(name: str, output: Any) -> Tensor:
    """A module's output, or the first tensor of a tuple or a dictionary."""
    if isinstance(output, Tensor):
        return output
    parts = (
        output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    )
    for part in parts:
        if isinstance(part, Tensor):
            return part
    raise InputError(f"layers: {name} returns a {type(output).__name__}, expected a tensor")


def _square_axes(output: Tensor) -> Layout | None:
    """Layout of an output of four axes whose grid is square, as that of a square image is; None: unclear."""
    _, one, two, three = output.shape
    if (one == two) == (two == three):
        return None
    return "channels_first" if two == three else "channels_last"


def _recognise(name: str, output: Tensor, layout: Layout | None, n_prefix: int | None) -> Output:
    """The layout of a layer's output for two images, as stated or by its shape."""
    shape = list(output.shape)
    if output.ndim not in (2, 3, 4) or shape[0] != 2:
        raise InputError(
            f"layers: {name} returns {shape} for 2 images, expected {', '.join(SHAPES.values())} "
            "or [n, channels]"
        )
    if output.ndim == 2:
        return Output("channels_first")
    if output.ndim == 4:
        if layout in ("channels_first", "channels_last"):
            return Output(layout)
        found = _square_axes(output)
        if found is None:
            raise InputError(
                f"layout: {name} returns {shape}, which is ambiguous; expected layout=channels_first or "
                "channels_last"
            )
        return Output(found)
    for count in (0, 1) if n_prefix is None else (n_prefix,):
        n_local = shape[1] - count
        if n_local > 0 and math.isqrt(n_local) ** 2 == n_local:
            return Output("tokens", count)
    assumed = "0 or 1" if n_prefix is None else str(n_prefix)
    raise InputError(
        f"prefix_tokens: {name} returns {shape[1]} tokens, {assumed} of them class or register tokens; "
        "expected the others to form a square grid"
    )
