"""Settings of mappings, by family."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.config.base import (
    Count,
    Section,
)

TokenPrecision = Literal["float32", "float16", "bfloat16"]
TokenPlace = Literal["auto", "device", "memory", "disk"]


class BaseMappingConfig(Section):
    """Settings shared by all families."""

    token_size: Count = Field(8, description="local tokens are resized to this many rows and columns")
    held_out: float = Field(
        0.2, gt=0, lt=1, description="share of the stimuli (or of the sessions) held out for scoring"
    )
    held_out_by: Literal["seed", "session", "shared", "list"] = Field(
        "seed",
        description="what to hold out: random stimuli, random sessions, stimuli that all subjects saw, or "
        "those of held_out_list",
    )
    held_out_list: str | None = Field(
        None,
        min_length=1,
        description="text or JSON file of the held-out stimuli (`mappings.splits`)",
    )
    floor_refits: int = Field(4, ge=2, description="number of refits of step 0 for the noise floor")
    bootstrap: bool = Field(True, description="each fit draws its training stimuli with replacement")

    @model_validator(mode="after")
    def _list_is_given_where_it_is_used(self) -> BaseMappingConfig:
        if (self.held_out_by == "list") != (self.held_out_list is not None):
            found = f"held_out_by {self.held_out_by} and held_out_list {self.held_out_list or 'null'}"
            raise ValueError(f"found {found}, expected a held_out_list if and only if held_out_by is list")
        return self


class TrainedMappingConfig(BaseMappingConfig):
    """Settings shared by families that are trained by gradients."""

    n_channels: Count = Field(32, description="width D of the bottleneck")
    batch_size: Count = Field(64, description="stimuli per step")
    lr: float = Field(5e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    steps: Count = 200
    regularization: float = Field(0.1, ge=0)
    regularization_steps: Count = Field(
        100, description="steps until the regularizer has decayed linearly to 0"
    )
    beta: float = Field(0.1, gt=0, description="threshold of the smooth-L1 loss, in units of the response")
    voxels_per_pass: Count = Field(
        50_000, description="bounds memory: more voxels take several passes per step, with the same result"
    )
    token_precision: TokenPrecision = Field("float16", description="precision of the stored tokens")
    token_place: TokenPlace = Field(
        "auto",
        description="where tokens are stored; auto: the device, else memory, else disk, by free space",
    )
    validation: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training stimuli that select the best state; 0: keep the last",
    )
    patience: Count | None = Field(
        None,
        description="stop a fit after this many twentieths of its steps without a better state; null: never",
    )
    warm_steps: Count | None = Field(
        None,
        description="start all fits from one of step 0 and train for this many steps; null: from scratch",
    )

    @model_validator(mode="after")
    def _patience_needs_validation(self) -> TrainedMappingConfig:
        if self.patience is not None and not self.validation:
            raise ValueError(
                f"found patience {self.patience} without validation, expected validation above 0"
            )
        return self


class FactorTopyConfig(TrainedMappingConfig):
    """Selectors are smooth functions of the voxel's coordinates (`harness.mappings.factortopy`)."""

    family: Literal["factortopy"] = "factortopy"
    lr: float = Field(1e-2, gt=0)
    start: Literal["places", "centre"] = Field(
        "places",
        description="where voxels begin to read: at the places from which single layers predict them best, "
        "or at the image's centre",
    )
    readout: Literal["ridge", "descent"] = Field(
        "ridge",
        description="ridge: after the last step, every voxel's weights are solved for in closed form; "
        "descent: they stay as gradient descent left them",
    )
    anchor: Literal["none", "frozen", "prior", "pull"] = Field(
        "frozen",
        description="how layer selectors use closed-form evidence for layers: not at all; frozen: they are "
        "it; prior: it adds to their logits; pull: a penalty draws them to it",
    )
    anchor_strength: float = Field(
        0.5,
        gt=0,
        description="frozen, prior: multiplies the log evidence; pull: weight of the cross-entropy (nats) in "
        "the loss",
    )
    anchor_coupling: float = Field(
        0.9,
        ge=0,
        description="how much a voxel's 6 nearest neighbours count in its evidence; from 1 on, voxels "
        "without any evidence come to agree on some layer all the same",
    )


class FreeSelectorsConfig(TrainedMappingConfig):
    """Every voxel has free selectors of its own (`harness.mappings.free_selectors`)."""

    family: Literal["free_selectors"] = "free_selectors"


class AttentionConfig(TrainedMappingConfig):
    """Every voxel attends to tokens (`harness.mappings.attention`)."""

    token_size: Count = Field(
        4, description="local tokens are resized to this many rows and columns; cost grows with its square"
    )
    family: Literal["attention"] = "attention"


class ThroughTimeConfig(TrainedMappingConfig):
    """One mapping for all snapshots (`harness.mappings.through_time`)."""

    family: Literal["through_time"] = "through_time"
    steps: Count = Field(200, description="optimizer steps per snapshot and per refit, all in one fit")
    change_penalty: float = Field(
        0.01,
        ge=0,
        description="penalty on the mean squared change of the layer logits: from step 0's, and from one "
        "snapshot to the next",
    )
    gain_penalty: float = Field(
        0.01, ge=0, description="penalty on the mean squared log gain of a snapshot's predictions"
    )
    rotated: bool = Field(
        True,
        description="rotate the channels of every snapshot's tokens onto step 0's (Procrustes)",
    )

    @model_validator(mode="after")
    def _no_state_is_selected(self) -> ThroughTimeConfig:
        if self.validation or self.warm_steps is not None:
            raise ValueError(
                f"found validation {self.validation} and warm_steps {self.warm_steps}, expected 0 and null: "
                "all snapshots share one fit"
            )
        return self


class LayerRidgeConfig(BaseMappingConfig):
    """Ridge regression from every layer (`harness.mappings.layer_ridge`)."""

    family: Literal["layer_ridge"] = "layer_ridge"
    pool: Count = Field(2, description="local tokens are average-pooled to this many rows and columns")
    n_components: Count | None = Field(None, description="principal components per layer; null: all features")
    alphas: list[Annotated[float, Field(gt=0)]] = Field(
        [10.0**power for power in range(-3, 6)],
        min_length=1,
        description="penalties to choose from, per voxel and layer; stimuli have a mean squared norm of 1",
    )
    n_folds: int = Field(5, ge=2, description="folds of the cross-validation over training stimuli")
    temperature: float = Field(
        0.02, gt=0, description="difference of cross-validated R² that makes a layer e times as probable"
    )


MappingConfig = (
    FactorTopyConfig | FreeSelectorsConfig | ThroughTimeConfig | LayerRidgeConfig | AttentionConfig
)
