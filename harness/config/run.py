"""Settings of studies and runs, and the whole configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.config.backbone import AnyBackboneConfig
from harness.config.base import (
    LATER,
    Count,
    Name,
    Section,
    Seed,
)
from harness.config.brain import BrainConfig
from harness.config.cluster import RayConfig, SlurmConfig
from harness.config.mapping import MappingConfig
from harness.config.method import MethodConfig
from harness.config.shifts import ShiftsConfig, check_shifts
from harness.config.task import (
    SequenceConfig,
    TaskConfig,
)


class ContrastConfig(Section):
    """A against B: runs of one value of a setting against those of another, in pairs of task and seed."""

    factor: str = Field("backbone.name", min_length=1, description="setting that tells A from B")
    a: str = Field(min_length=1, description="its value in A")
    b: str = Field(min_length=1, description="its value in B; differences are A − B")


class StudyConfig(Section):
    """A name for runs that belong together, and the grid of those runs."""

    name: Name = "default"
    grid: dict[str, list[Any]] = Field(
        {},
        description="setting or group → values; one run per combination. A value that is a mapping sets "
        "several settings together, the axis included",
    )
    leave_out: list[Any] = Field([], description="values of the grid to skip")
    launcher: Literal["local", "slurm", "ray"] = Field(
        "local",
        description="who starts the runs: this machine, SLURM as one job array, or Ray as tasks",
    )
    workers: Count | None = Field(
        None,
        description="runs at a time; null: one per GPU, or on a CPU as many as keep its cores busy and have "
        "4 GiB of main memory each; with SLURM or Ray as many as it has room for",
    )
    slurm: SlurmConfig = SlurmConfig()
    ray: RayConfig = RayConfig()
    contrast: ContrastConfig | None = Field(
        None, description="what the study ends in: A against B; null: only the comparison"
    )
    plan: str | None = Field(
        None,
        min_length=1,
        description="file of a preregistered test (palimpsest claim), whose hash each run's manifest gets; "
        "null: none",
    )


class FinetuneConfig(Section):
    """AdamW with linear warm-up and cosine decay."""

    epochs: Count = Field(10, description="passes over the training images, per task")
    max_steps: Count | None = Field(
        None, description="optimizer steps per task, if fewer than the epochs give; null: no limit"
    )
    batch_size: Count = Field(32, description="images per optimizer step, over processes and accumulation")
    lr: float = Field(5e-4, gt=0, description="peak learning rate")
    weight_decay: float = Field(0.05, ge=0, description="of AdamW, decoupled")
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="of the steps; learning rate rises from 0")
    clip_norm: float | None = Field(1.0, gt=0, description="maximum norm of the gradient; null: no clipping")
    precision: Literal["no", "fp16", "bf16"] = Field("no", description="mixed precision; no: float32")
    accumulation: Count = Field(1, description="backward passes per optimizer step")
    num_workers: int | None = Field(
        None, ge=0, description="data-loader workers per process; null: 0 on a CPU, up to 8 with a GPU"
    )
    channels_last: bool = Field(
        False,
        description="memory format of images and kernels; for convolutions on a GPU in mixed precision",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the target that is spread evenly over all classes",
        json_schema_extra=LATER,
    )

    @model_validator(mode="after")
    def _batch_can_be_shared(self) -> FinetuneConfig:
        if self.batch_size % self.accumulation:
            expected = f"a divisor of batch_size ({self.batch_size})"
            raise ValueError(f"found accumulation {self.accumulation}, expected {expected}")
        return self


class SnapshotsConfig(Section):
    """Steps to keep as snapshots: 0, first, first x ratio, first x ratio^2, ..., the last."""

    first: Count = Field(1, description="first step after 0")
    ratio: float = Field(2.0, gt=1, description="of one step to the next")
    at_epoch_ends: bool = Field(True, description="whether epoch ends are kept too")
    evenly: Count | None = Field(
        None,
        description="this many per task after step 0, evenly spaced, instead of the series and epoch ends; "
        "null: the series",
        json_schema_extra=LATER,
    )
    resume_every: Count = Field(50, description="optimizer steps between checkpoints for resuming")


class StabilityConfig(Section):
    """Evaluation of a sequence's heads around the end of each task (De Lange et al. 2023)."""

    window: int = Field(
        0, ge=0, description="optimizer steps before and after the end of each task to evaluate; 0: none"
    )
    interval: Count = Field(1, description="optimizer steps between evaluations")
    n_test: Count = Field(500, description="test images per task, evenly spaced, or all if it has fewer")


class ProbesConfig(Section):
    """Measurement of retention, on tasks that are not fine-tuned on."""

    tasks: list[Name | Annotated[TaskConfig, Field(discriminator="source")]] = Field(
        ["shapes", "textures", "counts"],
        description="options of task; may be empty. A run keeps the settings of those from your own folders",
    )
    n_train: Count = Field(1000, description="training images per task, or all if it has fewer")
    n_test: Count = Field(500, description="test images per task, or all if it has fewer")
    steps: Count = Field(200, description="optimizer steps of the linear probe")
    knn_k: Count = Field(10, description="neighbours of the k-NN probe")
    n_drift: int = Field(500, ge=4, description="stimuli for comparing representations with step 0")
    batch_size: Count = Field(128, description="images per forward pass")
    shifts: tuple[str, ...] = Field(
        (),
        description="shifts as in task.shifts, of every probe that has them; those of single probes add",
        json_schema_extra=LATER,
    )

    @model_validator(mode="after")
    def _shifts_exist(self) -> ProbesConfig:
        check_shifts(self.shifts)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the probe tasks, as in results."""
        return tuple(task if isinstance(task, str) else task.name for task in self.tasks)


class EvidenceConfig(Section):
    """Ridge evidence per layer, which decides whether regions rewired."""

    pool: Count = Field(3, description="places per side that local tokens are averaged to")
    n_stimuli: int = Field(1000, ge=50, description="at most; cost grows with the cube")
    n_voxels: int = Field(200, ge=5, description="per ROI, at most")
    n_draws: int = Field(4, ge=2, description="of noise, per kind and level of degraded controls")


class MlflowConfig(Section):
    """What a run's MLflow record holds beside its rows; no setting changes a result."""

    mappings: Literal["none", "last", "all"] = Field(
        "last", description="mappings among the artifacts: of the last snapshot, or of all and of the refits"
    )
    nested: bool = Field(
        False,
        description="whether runs are children of their study's run: MLflow's list then opens collapsed, and "
        "its charts empty",
    )
    log_model: bool = Field(
        False, description="whether the last snapshot becomes a logged model, for mlflow.pytorch.load_model"
    )
    system_metrics: bool = Field(
        True, description="use of processor, memory, disk, network and NVIDIA GPUs, every 10 s"
    )


class Config(Section):
    """Everything a run is made from."""

    seed: Seed = Field(0, description="of head, batches, augmentation, probes and mappings")
    runs_dir: str = Field("runs", min_length=1, description="folder of all runs, relative to the current one")
    backbone: AnyBackboneConfig = Field(discriminator="library")
    task: TaskConfig | SequenceConfig = Field(discriminator="source")
    method: MethodConfig = Field(discriminator="name")
    brain: BrainConfig = Field(discriminator="name")
    mapping: MappingConfig = Field(discriminator="family")
    study: StudyConfig
    finetune: FinetuneConfig = FinetuneConfig()
    snapshots: SnapshotsConfig = SnapshotsConfig()
    stability: StabilityConfig = Field(StabilityConfig(), json_schema_extra=LATER)
    probes: ProbesConfig = ProbesConfig()
    shifts: ShiftsConfig = ShiftsConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    mlflow: MlflowConfig = MlflowConfig()
    reuse: bool = Field(
        True,
        description="whether equal work of other runs is used: fine-tuning, from a run in runs_dir; fits, "
        "evidence and probes of step 0, from the cache",
    )
