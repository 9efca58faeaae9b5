"""Settings of a backbone."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from harness.config.base import (
    Name,
    Section,
    Seed,
)
from harness.config.python import (
    PythonSection,
    name_by_function,
)


class PreprocessingConfig(Section):
    """Overrides of the preprocessing that the weights were trained with."""

    mean: tuple[float, float, float] | None = Field(
        None, description="of RGB in 0 to 1; null: as the weights"
    )
    std: tuple[float, float, float] | None = Field(None, description="of RGB in 0 to 1; null: as the weights")
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


AnyBackboneConfig = BackboneConfig | PythonBackboneConfig
