"""Settings of fine-tuning methods: what is trained, and on which loss."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.config.base import (
    LATER,
    Count,
    Name,
    Section,
    Seed,
)
from harness.config.python import PythonSection


class HeadConfig(Section):
    """Settings shared by all methods with a head of their own: how it starts, and batch norm."""

    head: Literal["zero", "zero_shot", "linear_probe"] = Field(
        "zero",
        description="how heads start: at zero, from class texts, or from a linear probe on step 0's features",
        json_schema_extra=LATER,
    )
    frozen_head: bool = Field(False, description="whether heads stay as they start", json_schema_extra=LATER)
    batch_norm: Literal["train", "frozen"] = Field(
        "train",
        description="batch-norm statistics: of each batch, with running means updated, or as pretrained",
        json_schema_extra=LATER,
    )

    @model_validator(mode="after")
    def _something_is_trained(self) -> HeadConfig:
        name = getattr(self, "name", "")
        if self.frozen_head and name in ("linear_probe", "lp_ft"):
            raise ValueError(
                f"found frozen_head with {name}, which trains the head; expected frozen_head=false"
            )
        if self.frozen_head and self.head == "zero":
            raise ValueError(
                "found frozen_head with head zero, which gives no gradient; expected head=zero_shot or "
                "head=linear_probe"
            )
        return self


class AllWeightsConfig(HeadConfig):
    """Settings shared by all methods that train all weights."""

    frozen_blocks: int = Field(
        0, ge=0, description="number of blocks, counted from the stem, that stay frozen with it; 0: none"
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="learning rate of a block relative to the block above it"
    )


class FullConfig(AllWeightsConfig):
    """All weights are trained."""

    name: Literal["full"] = "full"


class LinearProbeConfig(HeadConfig):
    """Only a linear head is trained."""

    name: Literal["linear_probe"] = "linear_probe"


class LpFtConfig(AllWeightsConfig):
    """The head is trained first, then all weights (Kumar et al. 2022)."""

    name: Literal["lp_ft"] = "lp_ft"
    probe_share: float = Field(0.5, gt=0, lt=1, description="share of the steps that train only the head")
    probe_lr: float = Field(1e-2, gt=0, description="learning rate of the head-only steps")
    lr_factor: float = Field(0.1, gt=0, description="learning rate of the other steps / finetune.lr")


class LoraConfig(HeadConfig):
    """Low-rank updates of the weights and the head are trained (Hu et al. 2022)."""

    name: Literal["lora"] = "lora"
    rank: Count = 8
    alpha: float = Field(16.0, gt=0, description="updates are scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | None = Field(None, description="regular expression of modules; null: attention and MLP")


class BitFitConfig(HeadConfig):
    """Biases and the head are trained (Ben Zaken et al. 2022)."""

    name: Literal["bitfit"] = "bitfit"


class L2SpConfig(AllWeightsConfig):
    """All weights, with half the squared distance from the start as penalty (Li et al. 2018)."""

    name: Literal["l2_sp"] = "l2_sp"
    alpha: float = Field(0.1, ge=0, description="weight of half the squared distance from the start")
    beta: float = Field(0.01, ge=0, description="weight of half the squared norm of the head")


class L2SpLdifsConfig(AllWeightsConfig):
    """All weights, with the squared distance from the start as penalty: the baseline of the LDIFS paper."""

    name: Literal["l2_sp_ldifs"] = "l2_sp_ldifs"
    alpha: float = Field(0.5, ge=0, description="weight of the squared distance from the start")


class LdifsConfig(AllWeightsConfig):
    """All weights, with the distance from the pretrained tokens as penalty (Mukhoti et al. 2024)."""

    name: Literal["ldifs"] = "ldifs"
    weight: float = Field(10.0, ge=0, description="weight of the distance")
    axis: Literal["channels", "tokens"] = Field(
        "channels", description="axis along which vectors have unit length; the authors' code: tokens"
    )
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None, min_length=1, description="layer indices from 0; null: the layers at each quarter of the depth"
    )


class ProxyConfig(AllWeightsConfig):
    """Settings shared by methods that keep old answers: the data for an old head (`old_head`)."""

    proxy: Name = Field("shapes", description="task that stands for the pretraining data")
    n_proxy: Count = Field(200, description="number of the proxy's training images")


class EwcConfig(ProxyConfig):
    """All weights, with Fisher-weighted squared distances from the start (Kirkpatrick et al. 2017)."""

    name: Literal["ewc"] = "ewc"
    weight: float = Field(400.0, ge=0, description="λ; the penalty is λ/2 Σ F (θ − θ₀)²")
    fisher_batch: Count = Field(4, description="images whose gradients are in memory at once")


class LwfConfig(ProxyConfig):
    """All weights, with an old head's answers to the new images kept (Li and Hoiem 2016)."""

    name: Literal["lwf"] = "lwf"
    weight: float = Field(1.0, ge=0, description="weight of the Kullback-Leibler divergence")
    temperature: float = Field(2.0, gt=0, description="temperature of both distributions")


class ReplayConfig(AllWeightsConfig):
    """All weights, with images of earlier tasks of a sequence beside new ones (Chaudhry et al. 2019)."""

    name: Literal["replay"] = "replay"
    per_class: Count = Field(
        20, description="images kept of every class of earlier tasks, or all that a class has"
    )
    share: float = Field(0.5, gt=0, lt=1, description="of replayed images in a step, and of the loss")
    buffer_seed: Seed | None = Field(
        None, description="of the choice of images to keep; null: the run's seed"
    )


class BrainAnchorConfig(AllWeightsConfig):
    """All weights, with what step 0's mapping predicts of the brain kept, on unlabelled images."""

    name: Literal["brain_anchor"] = "brain_anchor"
    weight: float = Field(1.0, ge=0, description="λ, of the change of predicted responses")
    control: Literal["none", "shuffled", "random"] = Field(
        "none",
        description="what stands for the brain: its mapping, the same with selectors permuted over voxels, "
        "or a random one of the same size",
    )
    control_seed: Seed | None = Field(
        None, description="of the permutation or the random mapping; null: the run's seed"
    )
    images: str | None = Field(
        None,
        min_length=1,
        description="folder of unlabelled images, with subfolders; null: fresh scenes of the shapes world, "
        "for a simulated brain that has seen such scenes",
    )
    n_images: Count = Field(200, description="unlabelled images, evenly spaced in the folder's natural order")
    batch: Count | None = Field(
        None, description="of these, images per backward pass of a process; null: as many as of the task"
    )


class FlypConfig(Section):
    """Both towers, with the contrastive loss of their pretraining (Goyal et al. 2023)."""

    name: Literal["flyp"] = "flyp"


class PythonMethodConfig(PythonSection, AllWeightsConfig):
    """All weights, with an objective from a function of your own (`harness.finetuning.methods.python`)."""

    name: Literal["python"] = "python"
    function: str = Field(
        min_length=1,
        description="package.module:function, called with (model, task, backbone, device, **arguments); "
        "returns an Objective",
    )


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
    | ReplayConfig
    | BrainAnchorConfig
    | FlypConfig
    | PythonMethodConfig
)
