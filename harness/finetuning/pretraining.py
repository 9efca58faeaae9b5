"""Pretrain the built-in mini backbones.

Both objectives, supervised and contrastive, see the same images of the shapes world, in the same order and
equally often. Repeating the command resumes a stopped run from its last checkpoint.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import timm
import torch
from accelerate import Accelerator
from jaxtyping import Float, Int, UInt8
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save_file
from timm.layers.patch_dropout import PatchDropout
from timm.optim.muon import zeropower_via_newtonschulz
from torch import Tensor, nn
from torch.nn import functional

from harness.backbones import (
    MEAN,
    MODEL_NAME,
    STD,
    build_tokenizer,
    name_mini,
    register_clip_config,
    tokenize,
)
from harness.finetuning.checkpoints import (
    find_checkpoint,
    read_checkpoint,
    seed_step,
    write_checkpoint,
)
from harness.storage import (
    InputError,
    content_hash,
    open_npy,
    progress_bar,
    write_atomically,
    write_json,
)
from tasks import (
    COLOURS,
    IMAGE_SIZE,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    caption_scene,
    label_scenes,
    render_scenes,
    sample_scene,
    with_article,
)

# supervised head: one softmax per factor of the main object, and one for the number of objects
FACTORS = {
    "shape": len(SHAPES),
    "colour": len(COLOURS),
    "texture": len(TEXTURES),
    "size": len(SIZES),
    "count": 3,
}
WEIGHTS = Path(__file__).parents[1] / "backbones" / "weights"


class PretrainConfig(BaseModel):
    """Settings of a pretraining run, given as `name=value` on the command line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: Literal["contrastive", "supervised"]
    width: Literal[64, 96, 128] = 128
    images_seen: int = Field(300_000, gt=0)
    n_scenes: int = Field(98_304, gt=0)
    n_validation: int = Field(1_200, gt=0)
    batch_size: int = Field(64, gt=1)
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup_images: int = Field(10_000, ge=0)
    cooldown_fraction: float = Field(0.35, ge=0, le=1)
    patch_drop: float = Field(0.5, ge=0, lt=1)
    seed: int = 0
    validate_every: int = Field(500, gt=0)
    checkpoint_every: int = Field(250, gt=0)
    folder: Path = Path("runs/pretrain")


def sample_world(seed: int, n_scenes: int) -> list[Scene]:
    """Sample training scenes: half with one object, half with two or three, no novel combinations."""
    return [
        sample_scene(seed, index, n_objects=(1, 2, 1, 3)[index % 4], novel=False) for index in range(n_scenes)
    ]


def open_images(scenes: list[Scene], path: Path, show: bool) -> UInt8[np.ndarray, "n_images height width 3"]:
    """Render scenes into a file unless it exists, and memory-map it."""
    if not path.exists():
        with write_atomically(path) as temporary:
            shape = (len(scenes), IMAGE_SIZE, IMAGE_SIZE, 3)
            # open_memmap appends no suffix to the temporary name
            images = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            for start in progress_bar(range(0, len(scenes), 512), "rendering" if show else None):
                images[start : start + 512] = render_scenes(scenes[start : start + 512])
            images.flush()
    return open_npy(path)


def batches(config: PretrainConfig, start: int) -> Iterator[tuple[int, Int[np.ndarray, " n_images"]]]:
    """Yield epoch and image indices of every step from `start` on, as a function of the seed."""
    per_epoch = config.n_scenes // config.batch_size
    for step in range(start, config.images_seen // config.batch_size):
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng((config.seed, epoch)).permutation(config.n_scenes)
        yield epoch, np.sort(order[place * config.batch_size : (place + 1) * config.batch_size])


def to_input(
    images: UInt8[np.ndarray, "n_images height width 3"],
) -> Float[Tensor, "n_images 3 height width"]:
    """Convert images to the mini networks' input."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def build_model(objective: str, width: int = 128) -> Any:
    """Build an untrained model: timm's with the factor head, or open_clip's with a text tower.

    Parameters
    ----------
    objective : {"supervised", "contrastive"}
    width : int
        Of the vision tower, channels. The text tower has one width.
    """
    if objective == "supervised":
        return timm.create_model(name_mini(width), num_classes=sum(FACTORS.values()))
    register_clip_config()
    name = f"{MODEL_NAME}_clip"
    vision = open_clip.get_model_config(name)["vision_cfg"] | {"timm_model_name": name_mini(width)}
    return open_clip.create_model(name, vision_cfg=vision)


def factor_loss(
    logits: Float[Tensor, "n_images n_logits"], labels: dict[str, Int[np.ndarray, " n_images"]]
) -> Float[Tensor, ""]:
    """Sum the factors' cross-entropies; `labels` are by factor, from `label_scenes`."""
    parts = logits.split(list(FACTORS.values()), dim=1)
    losses = [
        functional.cross_entropy(part, torch.from_numpy(labels[name]).to(part.device))
        for name, part in zip(FACTORS, parts, strict=True)
    ]
    return torch.stack(losses).sum()


def learning_rate(config: PretrainConfig, step: int) -> float:
    """Return the fraction of the full rate: linear warm-up, constant, linear cool-down to zero."""
    seen = step * config.batch_size
    warm = min(1.0, (seen + config.batch_size) / max(config.warmup_images, 1))
    cooldown = config.cooldown_fraction * config.images_seen
    return warm * min(1.0, max(0.0, (config.images_seen - seen) / max(cooldown, 1)))


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum (Jordan et al. 2024), scaled to AdamW's updates (Liu et al. 2025).

    torch's and timm's versions compute in bfloat16, which takes seconds per step on CPUs without it; this one
    runs timm's Newton-Schulz iteration in the precision of the weights.
    """

    def __init__(
        self, params: list[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every matrix [n_out, n_in]."""
        for group in self.param_groups:
            for weight in group["params"]:
                average = self.state[weight].setdefault("average", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(average, group["momentum"])  # Nesterov
                update = zeropower_via_newtonschulz(
                    update, 5, [(3.4445, -4.7750, 2.0315)], dtype=weight.dtype
                )
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(update, alpha=group["lr"] * 0.2 * max(weight.shape) ** 0.5)


@torch.no_grad()
def score(
    model: Any, config: PretrainConfig, images: np.ndarray, labels: dict[str, np.ndarray]
) -> dict[str, float]:
    """Score accuracy on the main object's factors: top-1 of the head, or zero-shot by captions."""
    model.eval()
    device = next(model.parameters()).device
    inputs = to_input(images).to(device).split(200)
    if config.objective == "supervised":
        parts = torch.cat([model(part) for part in inputs]).split(list(FACTORS.values()), dim=1)
        logits = dict(zip(FACTORS, parts, strict=True))
    else:
        features = torch.cat([model.encode_image(part, normalize=True) for part in inputs])
        prompts = {"shape": [with_article(name) for name in SHAPES]}
        tokenizer = build_tokenizer()
        logits = {
            name: features @ model.encode_text(tokenize(tokenizer, texts).to(device), normalize=True).T
            for name, texts in prompts.items()
        }
    model.train()
    return {
        name: float((part.argmax(dim=1).cpu().numpy() == labels[name]).mean())
        for name, part in logits.items()
    }


def pretrain(config: PretrainConfig, command: str, weights_folder: Path = WEIGHTS) -> None:
    """Train, validate and write the weights, resuming from the last checkpoint."""
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    settings = config.model_dump(mode="json", exclude={"folder", "checkpoint_every", "validate_every"})
    folder = config.folder / f"{config.objective}-{content_hash(settings)[:8]}"
    scenes = sample_world(config.seed, config.n_scenes)
    folder.mkdir(parents=True, exist_ok=True)
    world = config.folder / f"world-{content_hash([config.seed, config.n_scenes, IMAGE_SIZE])[:8]}.npy"
    with accelerator.main_process_first():
        images = open_images(scenes, world, accelerator.is_main_process)
    novel = [
        sample_scene(config.seed + 1, index, n_objects=1, novel=True) for index in range(config.n_validation)
    ]
    seen = [
        sample_scene(config.seed + 2, index, n_objects=1, novel=False) for index in range(config.n_validation)
    ]
    validation = {
        name: (render_scenes(part), label_scenes(part)) for name, part in (("novel", novel), ("seen", seen))
    }

    torch.manual_seed(config.seed)
    model = build_model(config.objective, config.width)
    # Muon for the blocks' matrices, AdamW for the rest: fewer images to the same loss
    matrices = [p for name, p in model.named_parameters() if "blocks." in name and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    muon = Muon(matrices, lr=config.lr, weight_decay=config.weight_decay)
    adamw = torch.optim.AdamW(others, lr=config.lr / 2, weight_decay=config.weight_decay, betas=(0.9, 0.98))
    trunk = model if config.objective == "supervised" else model.visual.trunk
    trunk.patch_drop = PatchDropout(config.patch_drop, num_prefix_tokens=1)
    model, muon, adamw = accelerator.prepare(model, muon, adamw)
    clip_loss, tokenizer = open_clip.ClipLoss(), build_tokenizer()

    inner = accelerator.unwrap_model(model)
    checkpoint = find_checkpoint(folder / "checkpoints")
    start = read_checkpoint(checkpoint, inner, [muon, adamw]) if checkpoint else 0
    n_steps = config.images_seen // config.batch_size
    label = config.objective if accelerator.is_main_process else None
    bar = progress_bar(label=label, total=n_steps, initial=start, leave=True)
    for step, (epoch, indices) in enumerate(batches(config, start), start):
        seed_step(config.seed, step, accelerator.process_index)
        for optimizer, full in ((muon, config.lr), (adamw, config.lr / 2)):
            for group in optimizer.param_groups:
                group["lr"] = full * learning_rate(config, step)
        # half the patches teach nearly as much at half the cost (FLIP, Li et al. 2023); the end sees all
        trunk.patch_drop.prob = config.patch_drop if learning_rate(config, step) == 1.0 else 0.0
        own = indices[accelerator.process_index :: accelerator.num_processes]
        chosen_scenes = [scenes[index] for index in own]
        inputs = to_input(images[own]).to(accelerator.device)
        if config.objective == "supervised":
            loss = factor_loss(model(inputs), label_scenes(chosen_scenes))
        else:
            words = [
                caption_scene(scenes[index], np.random.default_rng((config.seed, epoch, int(index))))
                for index in own
            ]
            image_features, text_features, scale = model(
                inputs, tokenize(tokenizer, words).to(accelerator.device)
            )
            loss = clip_loss(image_features, text_features, scale)
        if not math.isfinite(loss.item()):
            raise InputError(
                f"pretraining diverged at step {step}: the loss is {loss.item()}; lower lr={config.lr}"
            )
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in (muon, adamw):
            optimizer.step()
            optimizer.zero_grad()
        if config.objective == "contrastive":
            with torch.no_grad():  # CLIP's bound on the temperature: at most 100
                inner.logit_scale.clamp_(0, math.log(100))
        bar.update()
        bar.set_postfix(loss=f"{loss.item():.3f}")
        done = step + 1
        if done % config.validate_every == 0 and accelerator.is_main_process:
            scores = {kind: score(inner, config, *part) for kind, part in validation.items()}
            with (folder / "validation.jsonl").open("a", encoding="utf-8") as log:
                print(json.dumps({"images_seen": done * config.batch_size, **scores}), file=log)
        if (done % config.checkpoint_every == 0 or done == n_steps) and accelerator.is_main_process:
            write_checkpoint(folder / "checkpoints", done, inner.state_dict(), [muon, adamw])
    bar.close()
    if accelerator.is_main_process:
        write_weights(inner, config, command, validation, weights_folder)


def write_weights(
    model: nn.Module,
    config: PretrainConfig,
    command: str,
    validation: dict[str, tuple[np.ndarray, dict]],
    weights_folder: Path,
) -> None:
    """Write half-precision weights, and a manifest with the scores of these weights."""
    tensors = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    name = {"contrastive": "mini_clip", "supervised": "mini_supervised"}[config.objective]
    path = weights_folder / f"{name}.safetensors"
    with write_atomically(path) as temporary:
        save_file(tensors, temporary)
    manifest = {
        "command": command,
        "settings": config.model_dump(mode="json", exclude={"folder"}),
        "images_seen": config.images_seen // config.batch_size * config.batch_size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights_hash": content_hash(tensors),
        "torch": torch.__version__,
        "scores": {kind: score(model, config, *part) for kind, part in validation.items()},
    }
    write_json(path.with_suffix(".json"), manifest)
    print(f"{path}: {manifest['scores']}")
