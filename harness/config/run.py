"""Settings of a study and of what a run does, and everything together."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from harness.config.backbone import AnyBackboneConfig
from harness.config.base import (
    Count,
    Name,
    Section,
    Seed,
)
from harness.config.brain import BrainConfig
from harness.config.mapping import MappingConfig
from harness.config.method import MethodConfig
from harness.config.task import (
    SequenceConfig,
    TaskConfig,
)


class StudyConfig(Section):
    """A name for runs that belong together, and which there are."""

    name: Name = "default"
    grid: dict[str, list[Any]] = Field(
        {},
        description="setting or group -> values; one run per combination. A value that is a mapping sets "
        "several settings together, the axis among them",
    )
    leave_out: list[Any] = Field([], description="values of the grid that are not run")


class FinetuneConfig(Section):
    """AdamW with linear warm-up and cosine decay."""

    epochs: Count = Field(10, description="of every task")
    max_steps: Count | None = Field(
        None, description="ends earlier, after this many optimizer steps of every task"
    )
    batch_size: Count = Field(32, description="images per step, over processes and accumulation")
    lr: float = Field(5e-4, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="share of the steps")
    clip_norm: float | None = Field(1.0, gt=0, description="of the gradient; null: never clipped")
    precision: Literal["no", "fp16", "bf16"] = "no"
    accumulation: Count = Field(1, description="backward passes per optimizer step")
    num_workers: int | None = Field(
        None, ge=0, description="of the data loader, per process; null: none on a CPU, up to 8 beside a GPU"
    )
    channels_last: bool = Field(
        False, description="memory format of images and kernels; for convolutions on a GPU, with precision"
    )

    @model_validator(mode="after")
    def _batch_can_be_shared(self) -> FinetuneConfig:
        if self.batch_size % self.accumulation:
            accepted = f"a divisor of batch_size ({self.batch_size})"
            raise ValueError(f"found accumulation {self.accumulation}, accepted: {accepted}")
        return self


class SnapshotsConfig(Section):
    """Which steps are kept: 0, first, first x ratio, first x ratio^2, ..., the last."""

    first: Count = 1
    ratio: float = Field(2.0, gt=1)
    at_epoch_ends: bool = True
    resume_every: Count = Field(50, description="optimizer steps between checkpoints to resume from")


class ProbesConfig(Section):
    """Measurements of retention on tasks that are not fine-tuned on."""

    tasks: list[Name] = Field(
        ["shapes", "textures", "counts"], description="names of files in configs/task; may be empty"
    )
    n_train: Count = Field(1000, description="training images of each, or all if it has fewer")
    n_test: Count = Field(500, description="test images of each, or all if it has fewer")
    steps: Count = Field(200, description="of the linear probe's optimizer")
    knn_k: Count = 10
    n_drift: int = Field(500, ge=4, description="stimuli on which representations are compared with step 0")
    batch_size: Count = Field(128, description="images per forward pass")


class Config(Section):
    """Everything a run is made from."""

    seed: Seed = Field(0, description="of head, batches, augmentation, probes and mappings")
    runs_dir: str = Field("runs", min_length=1, description="relative: to the current folder")
    backbone: AnyBackboneConfig = Field(discriminator="library")
    task: TaskConfig | SequenceConfig = Field(discriminator="source")
    method: MethodConfig = Field(discriminator="name")
    brain: BrainConfig = Field(discriminator="name")
    mapping: MappingConfig = Field(discriminator="family")
    study: StudyConfig
    finetune: FinetuneConfig = FinetuneConfig()
    snapshots: SnapshotsConfig = SnapshotsConfig()
    probes: ProbesConfig = ProbesConfig()
