"""Settings of a backbone."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from harness.config.base import (
    Name,
    Section,
    Seed,
)
from harness.config.python import (
    PythonSection,
    name_by_function,
)
from harness.storage import InputError


def _as_tuple(value: Any) -> Any:
    """Where a validator runs before, as for functions, pydantic's strict mode no longer sees JSON's lists."""
    return tuple(value) if isinstance(value, list) else value


PerChannel = Annotated[tuple[float, float, float], BeforeValidator(_as_tuple)]


class PreprocessingConfig(Section):
    """Overrides of the preprocessing that the weights were trained with."""

    mean: PerChannel | None = Field(None, description="of RGB in 0 to 1; null: as the weights")
    std: PerChannel | None = Field(None, description="of RGB in 0 to 1; null: as the weights")
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = Field(
        None, description="null: as the weights"
    )
    crop_pct: float | None = Field(
        None, gt=0, le=1, description="share of the edge that the centre crop keeps; null: as the weights"
    )
    crop_mode: Literal["center", "squash", "border"] | None = Field(
        None, description="how oblong images become square, as in timm; null: as the weights"
    )


class BackboneConfig(Section):
    """A pretrained network and its source (`docs/backbones.md`)."""

    library: Literal["timm", "open_clip"]
    model: str = Field(description="the library's name for the architecture")
    name: Name
    weights: str | None = Field(None, description="hub tag, which also sets preprocessing and activation")
    checkpoint: str | None = Field(
        None,
        min_length=1,
        description="file of weights, used instead of the hub. A relative path starts at the current folder "
        "or at the folder that holds harness/. With neither weights nor checkpoint the network is untrained",
    )
    objective: Name = Field(description="what it was pretrained for: contrastive, supervised, none, ...")
    size: Name | None = Field(None, description="size class: S, B, L, ..., to compare like with like")
    image_size: int | None = Field(None, ge=8, description="edge of the input, pixels; null: as the weights")
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    quick_gelu: bool | None = Field(None, description="open_clip: OpenAI's GELU; null: by tag and model")
    text: bool = Field(True, description="open_clip: whether to keep the text tower, for zero-shot")
    seed: Seed = Field(0, description="of the initialisation, without weights")

    @property
    def untrained(self) -> bool:
        """Whether the weights are random."""
        return self.weights is None and self.checkpoint is None

    @model_validator(mode="after")
    def _an_objective_needs_weights(self) -> BackboneConfig:
        if self.untrained and self.objective != "none":
            raise ValueError(
                f"found neither weights nor checkpoint for {self.name} with objective {self.objective}; "
                "expected a hub tag as weights, a file as checkpoint, or objective none (untrained)"
            )
        return self


class PythonBackboneConfig(PythonSection):
    """A network that a user's own function returns as a `Backbone` (`docs/extending.md`)."""

    library: Literal["python"] = "python"
    name: Name = Field(description="name in results; default: module.function")
    objective: Name = Field(
        "unstated", description="what it was pretrained for: contrastive, supervised, ...; none: untrained"
    )
    size: Name | None = Field(None, description="size class: S, B, L, ..., to compare like with like")
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    seed: Seed = Field(0, description="torch's seed while the function runs, for random weights")

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, values: Any) -> Any:
        return name_by_function(values)

    @property
    def model(self) -> str:
        """What the library calls the architecture: here, the function."""
        return self.function

    @property
    def untrained(self) -> bool:
        """Whether the weights are random."""
        return self.objective == "none"


class DiffusionBackboneConfig(Section):
    """A latent diffusion model, read at one timestep and for one prompt (`docs/backbones.md`)."""

    library: Literal["diffusers"]
    name: Name
    weights: str | None = Field(
        None, description="repository on the hub in diffusers' format, owner/name or owner/name@revision"
    )
    checkpoint: str | None = Field(
        None,
        min_length=1,
        description="folder in diffusers' format (model_index.json, unet/, vae/, ...), instead of the hub",
    )
    objective: Name = Field(description="what it was pretrained for: denoising")
    size: Name | None = Field(None, description="size class: S, B, L, ..., to compare like with like")
    image_size: int | None = Field(None, ge=8, description="edge of the input, pixels; null: as the weights")
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    timestep: int = Field(
        261,
        ge=0,
        description="of the noise schedule: 0 is least noise; at most the schedule's length − 1 (999 in "
        "Stable Diffusion)",
    )
    prompt: str = Field("", description="text that the U-Net is given with every image; empty: none")
    noise_seed: Seed = Field(0, description="of the noise, which is the same for all images")
    precision: Literal["no", "fp16", "bf16"] = Field(
        "no",
        description="mixed precision of the U-Net; no, and fp16 on a CPU: float32. The image encoder always "
        "has float32",
    )

    @property
    def model(self) -> str:
        """What the library calls the architecture: here, the repository or folder."""
        return str(self.weights if self.checkpoint is None else self.checkpoint)

    @property
    def untrained(self) -> bool:
        """Whether the weights are random."""
        return False

    @model_validator(mode="after")
    def _weights_are_a_repository(self) -> DiffusionBackboneConfig:
        if self.weights is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", self.weights):
            raise ValueError(
                f"found weights {self.weights}, expected a repository of the hub (owner/name); a folder is "
                "backbone.checkpoint"
            )
        return self

    @model_validator(mode="after")
    def _weights_are_named(self) -> DiffusionBackboneConfig:
        if self.weights is None and self.checkpoint is None:
            raise ValueError(
                f"found neither weights nor checkpoint for {self.name}; expected a repository of the hub as "
                "weights, or a folder in diffusers' format as checkpoint"
            )
        return self


AnyBackboneConfig = BackboneConfig | PythonBackboneConfig | DiffusionBackboneConfig


def name_by_model(model: str) -> str:
    """Make a name for results from the name of a model, which may have other characters (ViT-B/32)."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", model).strip("-._")[:60]


def check_tunable(config: AnyBackboneConfig) -> None:
    """Raise an `InputError` if a backbone can only be mapped as it is, not fine-tuned."""
    if isinstance(config, DiffusionBackboneConfig):
        raise InputError(
            f"backbone: found {config.name} (library diffusers), which no method fine-tunes, expected a "
            f"backbone of another library; palimpsest map backbone={config.name} maps it as it is"
        )
