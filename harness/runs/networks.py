"""Sizes of networks, without their weights: known from the cache, or counted once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from harness.config import (
    AnyBackboneConfig,
    BackboneConfig,
)
from harness.runs.sources import (
    hash_sources,
    package_version,
)
from harness.storage import remember

if TYPE_CHECKING:
    from harness.backbones import Backbone
else:
    # torch takes seconds to import, and what the cache knows needs none
    Backbone = Any

BUILDERS = ("torch", "torchvision", "timm", "open_clip_torch", "transformers", "peft")
"""Packages that build networks."""


@dataclass(frozen=True)
class Network:
    """Size of a network.

    Attributes
    ----------
    n_encoder, n_all : int
        Parameters of the image tower, and with a text tower if there is one.
    widths : tuple of int
        Channels of every layer.
    """

    n_encoder: int
    n_all: int
    widths: tuple[int, ...]


@cache
def outline_network(config: AnyBackboneConfig) -> Backbone:
    """Build a network without its text tower on torch's meta device, once for all methods."""
    import torch

    from harness.backbones import load_backbone

    bare = config.model_copy(update={"text": False}) if config.library == "open_clip" else config
    with torch.device("meta"):
        return load_backbone(bare, pretrained=False)


@cache
def describe_network(config: AnyBackboneConfig) -> Network:
    """Count a network's parameters, without memory for them; errors are those of `load_backbone`."""
    found = remember_network("parameters", config, {}, lambda: asdict(_count(config)))
    return Network(found["n_encoder"], found["n_all"], tuple(found["widths"]))


def _count(config: AnyBackboneConfig) -> Network:
    import torch

    with torch.device("meta"):
        backbone = outline_network(config)
        n_encoder = n_all = sum(part.numel() for part in backbone.encoder.parameters())
        if config.library == "open_clip" and config.text:
            import open_clip

            from harness.backbones import without_remark_on_random_weights

            with without_remark_on_random_weights():
                whole = open_clip.create_model(config.model, load_weights=False, device="meta")
            n_all += sum(
                part.numel() for name, part in whole.named_parameters() if not name.startswith("visual.")
            )
    return Network(n_encoder, n_all, backbone.widths)


def count_token_bytes(config: AnyBackboneConfig, token_size: int, count: Callable[[], int]) -> int:
    """Return the bytes of one image's tokens from the cache, or `count` them on the loaded backbone.

    A file of weights that has changed is loaded again, because it may be unfit.
    """
    key: dict[str, Any] = {"token_size": token_size}
    if isinstance(config, BackboneConfig) and config.checkpoint is not None:
        from harness.backbones import locate_checkpoint

        path = locate_checkpoint(config.checkpoint)
        if not path.is_file():
            return count()
        state = path.stat()
        key |= {"file": str(path.resolve()), "size": state.st_size, "time": state.st_mtime_ns}
    found: int = remember_network("tokens", config, key, count)
    return found


def remember_network(
    fact: str, config: AnyBackboneConfig, key: Mapping[str, Any], find: Callable[[], Any]
) -> Any:
    """Look up a fact of a library's network in the cache folder, or find it out and keep it.

    A user's own function may return another network each time, and the folder of a diffusion model may hold
    another one tomorrow, so nothing is kept of them.

    Parameters
    ----------
    fact : str
        What it is, such as ``parameters``.
    config : AnyBackboneConfig
    key : mapping
        What it follows from beside the backbone's settings and the installed code, as JSON.
    find : function
        Finds it out, as JSON; what it raises is not kept.
    """
    if not isinstance(config, BackboneConfig):
        return find()
    installed = {name: package_version(name) for name in BUILDERS}
    settings = config.model_dump(mode="json")
    whole = {"fact": fact, "backbone": settings, **key, "packages": installed, "sources": hash_sources()}
    return remember("facts", whole, find)
