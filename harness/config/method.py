"""Settings of what is trained, and on which loss."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.config.base import (
    Count,
    Name,
    Section,
)


class AllWeightsConfig(Section):
    """What every method that trains all weights is told."""

    frozen_blocks: int = Field(
        0, ge=0, description="the stem and so many blocks from there stay as pretrained; 0: nothing is frozen"
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="learning rate of a block, as a share of that of the block above it"
    )


class FullConfig(AllWeightsConfig):
    """Every weight is trained."""

    name: Literal["full"] = "full"


class LinearProbeConfig(Section):
    """Only a linear head is trained."""

    name: Literal["linear_probe"] = "linear_probe"


class LpFtConfig(AllWeightsConfig):
    """First the head alone is trained, then all weights from there (Kumar et al. 2022)."""

    name: Literal["lp_ft"] = "lp_ft"
    probe_share: float = Field(0.5, gt=0, lt=1, description="of the steps, in which only the head is trained")
    probe_lr: float = Field(1e-2, gt=0, description="of these steps")
    lr_factor: float = Field(0.1, gt=0, description="the other steps' rate, as a share of finetune.lr")


class LoraConfig(Section):
    """Low-rank additions to the weights are trained (Hu et al. 2022), and the head."""

    name: Literal["lora"] = "lora"
    rank: Count = 8
    alpha: float = Field(16.0, gt=0, description="the addition is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | None = Field(None, description="regular expression of modules; null: attention and MLP")


class BitFitConfig(Section):
    """Biases are trained, and the head (Ben Zaken et al. 2022)."""

    name: Literal["bitfit"] = "bitfit"


class L2SpConfig(AllWeightsConfig):
    """All weights, drawn to where they started (Li et al. 2018: half the squared distance)."""

    name: Literal["l2_sp"] = "l2_sp"
    alpha: float = Field(0.1, ge=0, description="weight of half the squared distance from the start")
    beta: float = Field(0.01, ge=0, description="weight of half the squared norm of the head")


class L2SpLdifsConfig(AllWeightsConfig):
    """All weights, drawn to where they started, as LDIFS compares itself with: the distance not halved."""

    name: Literal["l2_sp_ldifs"] = "l2_sp_ldifs"
    alpha: float = Field(0.5, ge=0, description="weight of the squared distance from the start")


class LdifsConfig(AllWeightsConfig):
    """All weights, tokens drawn to those of the pretrained backbone (Mukhoti et al. 2024)."""

    name: Literal["ldifs"] = "ldifs"
    weight: float = Field(10.0, ge=0, description="of the distance")
    axis: Literal["channels", "tokens"] = Field(
        "channels", description="tokens are of unit length over these; the authors' code: tokens"
    )
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None, min_length=1, description="counted from 0; null: at each quarter of the depth"
    )


class ProxyConfig(AllWeightsConfig):
    """What methods that keep old answers are told: what these are on (`old_head`)."""

    proxy: Name = Field("shapes", description="a task that stands for what the backbone was pretrained on")
    n_proxy: Count = Field(200, description="its training images")


class EwcConfig(ProxyConfig):
    """All weights, each drawn to its start by its Fisher information (Kirkpatrick et al. 2017)."""

    name: Literal["ewc"] = "ewc"
    weight: float = Field(400.0, ge=0, description="λ; the penalty is λ/2 Σ F (θ − θ₀)²")
    fisher_batch: Count = Field(4, description="images whose gradients are held at once; bounds memory")


class LwfConfig(ProxyConfig):
    """All weights, an old head's answers to the new images kept (Li and Hoiem 2016)."""

    name: Literal["lwf"] = "lwf"
    weight: float = Field(1.0, ge=0, description="of the Kullback-Leibler divergence")
    temperature: float = Field(2.0, gt=0, description="of both distributions")


class FlypConfig(Section):
    """Both towers, with the contrastive loss that they were pretrained with (Goyal et al. 2023)."""

    name: Literal["flyp"] = "flyp"


MethodConfig = (
    FullConfig
    | LinearProbeConfig
    | LpFtConfig
    | LoraConfig
    | BitFitConfig
    | L2SpConfig
    | L2SpLdifsConfig
    | LdifsConfig
    | EwcConfig
    | LwfConfig
    | FlypConfig
)
