"""Latent diffusion models as backbones: the U-Net's blocks, at one timestep and for one prompt."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

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
    explain_hub_errors,
    read_json,
    refuse_endless,
)

EXTRA = "palimpsest[diffusion]"
PACKAGES = ("diffusers", "transformers")
ADVICE = (
    "download it on a machine with network access, or pass a folder in diffusers' format as "
    "backbone.checkpoint=PATH"
)
# classes in model_index.json
CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
}
# files of weights, without suffix
FILES = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
MOST_NAMED = 3


class NoisyUnet(nn.Module):
    """From an image to what a latent diffusion model makes of it: the encoder of `DiffusionBackbone`.

    With z the mean of the image encoder's latent times its scaling factor, ε the noise and ᾱ_t the share of
    signal at timestep t, the U-Net reads √ᾱ_t z + √(1 − ᾱ_t) ε (Ho, Jain and Abbeel 2020, eq. 4; Rombach et
    al. 2022).

    Attributes
    ----------
    vae : AutoencoderKL
        Without decoder.
    unet : UNet2DConditionModel
    prompt : float tensor [1, n_text_tokens, n_text_channels]
        Last hidden states of the text encoder.
    noise : float tensor [1, n_latent_channels, height, width]
        ε: one draw, for all images.
    signal : float tensor []
        ᾱ_t, 0 to 1.
    timestep : int
        t.
    precision : "no", "fp16" or "bf16"
        Of the U-Net, mixed as in training; no, and fp16 on a CPU: float32.
    """

    prompt: Tensor
    noise: Tensor
    signal: Tensor

    def __init__(
        self,
        vae: Any,
        unet: Any,
        prompt: Float[Tensor, "1 n_text_tokens n_text_channels"],
        noise: Float[Tensor, "1 n_latent_channels height width"],
        signal: Float[Tensor, ""],
        timestep: int,
        precision: str = "no",
    ) -> None:
        super().__init__()
        self.vae, self.unet, self.timestep, self.precision = vae, unet, timestep, precision
        # buffers, so the hash of the weights tells prompts, seeds and timesteps apart
        for name, part in (("prompt", prompt), ("noise", noise), ("signal", signal)):
            self.register_buffer(name, part)

    def latents(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> Float[Tensor, "n_images n_latent_channels _ _"]:
        """Scaled latents of preprocessed images, without noise."""
        encoded = self.vae.encode(images.to(self.noise.dtype)).latent_dist.mode()
        return (encoded - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor

    def forward(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> Float[Tensor, "n_images n_latent_channels _ _"]:
        """What the U-Net predicts for preprocessed images with noise."""
        noisy = self.signal.sqrt() * self.latents(images) + (1 - self.signal).sqrt() * self.noise
        prompt = self.prompt.expand(len(images), -1, -1)
        device = noisy.device.type
        # in float16, a CPU takes minutes an image
        dtype = None if (self.precision, device) == ("fp16", "cpu") else DTYPES.get(self.precision)
        with torch.autocast(device, dtype, enabled=dtype is not None):
            return self.unet(noisy, self.timestep, encoder_hidden_states=prompt).sample


class DiffusionBackbone(Backbone):
    """The U-Net of a latent diffusion model; its layers are the down, mid and up blocks.

    Features are the mid block's local tokens, averaged. Nothing is trained.

    Parameters
    ----------
    encoder : NoisyUnet
    image_size : int
        Edge of the input, pixels.
    """

    encoder: NoisyUnet

    def __init__(self, encoder: NoisyUnet, image_size: int) -> None:
        # the image encoder expects RGB in −1 to 1
        super().__init__(Preprocessing(image_size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), text=None)
        self.encoder = encoder.requires_grad_(False)
        widths = [int(width) for width in encoder.unet.config.block_out_channels]
        down, up = ([f"{side}_blocks.{place}" for place in range(len(widths))] for side in ("down", "up"))
        self.layers = (*down, "mid_block", *up)
        self.widths = (*widths, widths[-1], *reversed(widths))
        self.n_features = widths[-1]

    def forward(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> Float[Tensor, "n_images n_channels"]:
        """Mean of the mid block's local tokens, float32."""
        return self.features_and_tokens(images)[0]

    def tokens(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]]:
        """Output of every block, float32, and its mean over places as the global token.

        A down block ends with its downsampling and an up block with its upsampling, so a grid is that of the
        next block's input.
        """
        return self.features_and_tokens(images)[1]

    def features_and_tokens(
        self, images: Float[Tensor, "n_images 3 height width"]
    ) -> tuple[
        Float[Tensor, "n_images n_channels"],
        tuple[list[Float[Tensor, "n_images _ _ _"]], list[Float[Tensor, "n_images _"]]],
    ]:
        """Return features and tokens from one pass."""
        with self._record() as outputs:
            self.encoder(images)
        grids = [outputs[name] for name in self.layers]
        local, global_ = split_tokens(grids, [None] * len(grids))
        return global_[self.layers.index("mid_block")], (local, global_)

    def depths(self) -> dict[str, int]:
        """Return the depth of every encoder parameter: 0 before the first block, last after the last one."""
        places = {f"unet.{name}.": place for place, name in enumerate(self.layers, 1)}
        above = tuple(f"unet.{name}." for name in ("conv_norm_out", "conv_out"))

        def depth(name: str) -> int:
            if name.startswith(above):
                return len(self.layers) + 1
            return next((place for start, place in places.items() if name.startswith(start)), 0)

        return {name: depth(name) for name, _ in self.encoder.named_parameters()}

    @contextmanager
    def _record(self) -> Iterator[dict[str, Tensor]]:
        """Keep the outputs of all blocks while the U-Net runs."""
        outputs: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                # a down block also returns what it passes to the up blocks
                found = output[0] if isinstance(output, tuple) else output
                outputs[name] = found.float()

            return hook

        unet = self.encoder.unet
        handles = [unet.get_submodule(name).register_forward_hook(keep(name)) for name in self.layers]
        try:
            yield outputs
        finally:
            for handle in handles:
                handle.remove()


def load_diffusion(
    weights: str | None,
    checkpoint: Path | None = None,
    *,
    timestep: int,
    prompt: str = "",
    noise_seed: int = 0,
    image_size: int | None = None,
    precision: str = "no",
) -> DiffusionBackbone:
    """Load the U-Net, the image encoder and one prompt's embedding of a Stable Diffusion 1.x or 2.x model.

    Parameters
    ----------
    weights : str or None
        Repository on the hub, ``owner/name`` or ``owner/name@revision``.
    checkpoint : Path, optional
        Folder in diffusers' format, used instead of the hub.
    timestep : int
        From 0 to the length of the noise schedule − 1.
    prompt : str
        Given to the U-Net with every image.
    noise_seed : int
    image_size : int, optional
        Edge of the input, pixels; by default the one that the U-Net was trained with.
    precision : "no", "fp16" or "bf16"
        Mixed precision of the U-Net; no, and fp16 on a CPU: float32.

    Raises
    ------
    InputError
        If diffusers is not installed, the hub is unreachable, a file is missing, pickled, broken or of
        another kind of model, or a setting is out of the model's range.
    """
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"backbone.library: diffusers needs the package {package}, which is not installed; "
                f"expected: pip install '{EXTRA}'"
            )
    folder = checkpoint if checkpoint is not None else _fetch(cast(str, weights))
    _check_folder(folder)
    with _without_progress_bars():
        from diffusers import (
            AutoencoderKL,
            DDPMScheduler,
            UNet2DConditionModel,
        )

        unet = _load_part(UNet2DConditionModel, folder / "unet", torch_dtype=torch.float32)
        vae = _load_part(AutoencoderKL, folder / "vae", torch_dtype=torch.float32)
        embedding = _embed(prompt, folder)
        # noise is added alike by all schedulers of a model: only the schedule is read
        schedule = _load_part(DDPMScheduler, folder / "scheduler")
    n_latent = int(vae.config.latent_channels)
    if unet.config.in_channels != n_latent or unet.config.addition_embed_type is not None:
        raise InputError(
            f"{folder / 'unet'}: found a U-Net with {unet.config.in_channels} input channels and further "
            f"inputs {unet.config.addition_embed_type}, expected {n_latent} channels and none "
            "(Stable Diffusion 1.x or 2.x)"
        )
    n_steps = len(schedule.alphas_cumprod)
    if not 0 <= timestep < n_steps:
        raise InputError(f"backbone.timestep: found {timestep}, expected 0 to {n_steps - 1} for {folder}")
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    step = factor * 2 ** (len(unet.config.block_out_channels) - 1)
    size = image_size or factor * int(unet.config.sample_size)
    if size % step:
        raise InputError(f"backbone.image_size: found {size}, expected a multiple of {step}")
    vae.decoder = vae.post_quant_conv = nn.Identity()
    vae.enable_slicing()  # its first layers take half a GB an image
    generator = torch.Generator().manual_seed(noise_seed)
    noise = torch.randn(1, n_latent, size // factor, size // factor, generator=generator)
    signal = schedule.alphas_cumprod[timestep].clone()
    encoder = NoisyUnet(vae, unet, embedding, noise, signal, timestep, precision)
    backbone = DiffusionBackbone(encoder, size)
    backbone.flags |= {
        "timestep": timestep,
        "prompt": prompt,
        "noise_seed": noise_seed,
        "precision": precision,
    }
    return backbone.eval()


def _fetch(repository: str) -> Path:
    """Get the files of a repository from the hub or its cache; return their folder."""
    from huggingface_hub import snapshot_download

    name, _, revision = repository.partition("@")
    # neither pickles nor copies in other precisions
    wanted = ["model_index.json", "*/*config.json", "tokenizer/*", "*/*.safetensors.index.json"]
    for part, file in FILES.items():
        wanted += [f"{part}/{file}.safetensors", f"{part}/{file}-*.safetensors"]
    with explain_hub_errors(repository, ADVICE):
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted))


def _check_folder(folder: Path) -> None:
    """Check that a folder has the parts of a Stable Diffusion model, with weights as safetensors."""
    expected = "expected a folder in diffusers' format (model_index.json, unet/, vae/, text_encoder/, ...)"
    if not folder.is_dir():
        raise InputError(f"{folder}: {'found a file' if folder.exists() else 'no such folder'}, {expected}")
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        refuse_endless(path)
    if not (folder / "model_index.json").is_file():
        raise InputError(f"{folder}: found no model_index.json, {expected}")
    index = read_json(folder / "model_index.json")
    for part, name in CLASSES.items():
        found = index.get(part) or [None, None]
        if not isinstance(found, list) or name not in found:
            raise InputError(
                f"{folder / 'model_index.json'}: found {part} {found[-1]} in a {index.get('_class_name')}, "
                f"expected {name} (Stable Diffusion 1.x or 2.x)"
            )
    if index.get("text_encoder_2") is not None:
        raise InputError(
            f"{folder / 'model_index.json'}: found two text encoders in a {index.get('_class_name')}, "
            "expected one (Stable Diffusion 1.x or 2.x)"
        )
    for part, stem in FILES.items():
        own = folder / part
        file = own / f"{stem}.safetensors"
        if file.is_file() or (own / f"{stem}.safetensors.index.json").is_file():
            continue
        others = sorted(path.name for path in own.glob("*") if path.suffix in (*PICKLES, ".safetensors"))
        if any(name.endswith(PICKLES) for name in others):
            raise InputError(
                f"{own}: found {', '.join(others)}; pickles are not loaded, expected {file.name}"
            )
        raise InputError(f"{file}: no such file{f', found {others[0]}' if others else ''}")


def _load_part(kind: Any, folder: Path, **options: Any) -> Any:
    """Load one part of a model strictly from its folder; an `InputError` says what is wrong with it."""
    from safetensors import SafetensorError

    weighted = folder.name in FILES
    if weighted:
        options |= {"use_safetensors": True, "output_loading_info": True}
    try:
        found = kind.from_pretrained(folder, local_files_only=True, **options)
    except (SafetensorError, OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
        detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"{folder}: not readable as {kind.__name__} ({detail})") from error
    if not weighted:
        return found
    part, info = found
    for what in ("missing", "mismatched"):
        if names := sorted(map(str, info.get(f"{what}_keys") or ())):
            more = ", ..." if len(names) > MOST_NAMED else ""
            raise InputError(
                f"{folder}: weights do not fit {kind.__name__}: {len(names)} {what} "
                f"({', '.join(names[:MOST_NAMED])}{more})"
            )
    return part


def _embed(prompt: str, folder: Path) -> Float[Tensor, "1 n_text_tokens n_text_channels"]:
    """Embed a prompt as Stable Diffusion's pipelines do: padded to the context, last hidden states."""
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = _load_part(CLIPTokenizer, folder / "tokenizer")
    model = _load_part(CLIPTextModel, folder / "text_encoder", dtype=torch.float32)
    length = min(int(tokenizer.model_max_length), int(model.config.max_position_embeddings))
    n_tokens = len(tokenizer(prompt).input_ids)
    if n_tokens > length:
        raise InputError(f"backbone.prompt: found {n_tokens} tokens, expected at most {length}")
    inputs = tokenizer(prompt, padding="max_length", max_length=length, return_tensors="pt")
    # Stable Diffusion was trained without a mask of the padding, unless its configuration says so
    masked = getattr(model.config, "use_attention_mask", False)
    with torch.no_grad():
        found = model.eval()(inputs.input_ids, attention_mask=inputs.attention_mask if masked else None)
    return found.last_hidden_state


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Load without transformers' progress bars, which it draws for every file."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
