"""What can be set: every section of the configuration with its defaults, units and ranges.

`harness.config` composes and checks them. A file in ``configs/`` states what makes an option what it is;
everything else comes from here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# names become folders, tags and parts of metric names
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    """Base of all settings: never changed, no unknown keys, no silent conversions, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class BackboneConfig(Section):
    """A pretrained network and where it comes from."""

    name: Name
    library: Literal["timm", "open_clip"]
    model: str = Field(description="the library's name of the architecture")
    weights: str | None = Field(None, description="path (from the repository) or hub tag; null: untrained")
    objective: Name = Field(description="what it was pretrained for: contrastive, supervised, none, ...")
    seed: Seed = Field(0, description="of the initialisation, where there are no weights")


class TaskConfig(Section):
    """The task that is fine-tuned on."""

    name: Name
    n_train: Count | None = Field(None, description="training images; null: all there are")
    n_test: Count | None = Field(None, description="test images; null: all there are")
    seed: Seed = Field(0, description="of the draw of images and of the split")
    image_size: int = Field(64, ge=8, description="edge of the images as the task hands them over, pixels")


class FullConfig(Section):
    """Every weight is trained."""

    name: Literal["full"] = "full"


class LinearProbeConfig(Section):
    """Only a linear head is trained."""

    name: Literal["linear_probe"] = "linear_probe"


class LoraConfig(Section):
    """Low-rank additions to the weights are trained (Hu et al. 2022), and the head."""

    name: Literal["lora"] = "lora"
    rank: Count = 8
    alpha: float = Field(16.0, gt=0, description="the addition is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | None = Field(None, description="regular expression of modules; null: attention and MLP")


MethodConfig = FullConfig | LinearProbeConfig | LoraConfig


class BaseBrainConfig(Section):
    """What every source of brains is told: which of its voxels are used."""

    rois: tuple[Name, ...] | None = Field(
        None, min_length=1, description="only voxels in one of these; null: all there are"
    )
    min_ceiling: float | None = Field(
        None, ge=0, le=1, description="only voxels of this noise ceiling or more; null: all there are"
    )


class SimulatedConfig(BaseBrainConfig):
    """The simulated subject."""

    name: Literal["simulated"] = "simulated"
    n_voxels: int = Field(2000, ge=100, le=6000)
    n_stimuli: int = Field(1000, ge=20)
    stimuli: str | None = Field(
        None,
        min_length=1,
        description="folder of images to show, also in subfolders; null: scenes of the shapes world",
    )
    noise_ceiling: float = Field(
        0.6, gt=0.2, lt=0.9, description="explainable share of the median voxel's variance"
    )
    seed: Seed = 0


class Algonauts2023Config(BaseBrainConfig):
    """A subject of the Algonauts 2023 challenge (`harness.brains.algonauts2023`)."""

    name: Literal["algonauts2023"] = "algonauts2023"
    root: str = Field(min_length=1, description="folder of a subject, or the one that holds subj01 to subj08")
    subject: int | None = Field(
        None, ge=1, le=8, description="which one, where root holds several; null: root is the subject's"
    )
    test_images: bool = Field(
        False, description="whether the test images are stimuli too, where their responses are there"
    )


class ArraysConfig(BaseBrainConfig):
    """Responses and coordinates as plain arrays (`harness.brains.arrays`)."""

    name: Literal["arrays"] = "arrays"
    root: str = Field(min_length=1, description="an npz file, or a folder of npy files")
    standardise: bool = Field(True, description="give every voxel mean 0 and variance 1 over all rows")


class NsdConfig(BaseBrainConfig):
    """A subject of the Natural Scenes Dataset (`harness.brains.nsd`)."""

    name: Literal["nsd"] = "nsd"
    root: str = Field(min_length=1, description="the folder that holds nsddata and nsddata_betas")
    subject: int = Field(1, ge=1, le=8)
    preparation: Literal["func1pt8mm", "func1mm", "fsaverage", "nativesurface"] = "func1pt8mm"
    betas: Name = Field("betas_fithrf_GLMdenoise_RR", description="folder of responses in the preparation")
    sessions: tuple[Count, ...] | None = Field(
        None, min_length=1, description="which, counted from 1; null: all there are"
    )
    mask: Name | None = Field(
        None, description="atlas whose labels above 0 are the voxels; null: nsdgeneral, else streams"
    )
    atlases: tuple[Name, ...] | None = Field(
        None, description="whose labels become ROIs; null: those of the visual areas and streams there are"
    )
    standardise: bool = Field(True, description="z-score every voxel within every session")
    average: Literal["stimulus", "session", "none"] = Field(
        "stimulus", description="repeats of a picture over all sessions, within a session, or not at all"
    )
    stimuli: str | None = Field(
        None, min_length=1, description="path of nsd_stimuli.hdf5, where it is not in root"
    )


class GrayordinatesConfig(BaseBrainConfig):
    """Maps of responses on grayordinates, as CIFTI files (`harness.brains.grayordinates`)."""

    name: Literal["grayordinates"] = "grayordinates"
    root: str = Field(min_length=1, description="folder of the maps and of the table of stimuli")
    maps: str = Field(
        "*.d*.nii",
        min_length=1,
        description="pattern of the CIFTI files below root, used in the order of names",
    )
    table: str | None = Field(
        None, min_length=1, description="one row per map, below root; null: stimuli.tsv or stimuli.csv"
    )
    images: str | None = Field(
        None, min_length=1, description="folder that the table's file names start from; null: root"
    )
    cortex: Literal["visual", "all"] = Field("visual", description="which areas of MMP 1.0")
    subcortex: bool = Field(False, description="whether voxels below the cortex are taken too")
    standardise: bool = Field(True, description="z-score every grayordinate within every session")
    average: Literal["stimulus", "session", "none"] = Field(
        "stimulus", description="repeats of a picture over all sessions, within a session, or not at all"
    )


BrainConfig = SimulatedConfig | Algonauts2023Config | ArraysConfig | NsdConfig | GrayordinatesConfig


TokenPrecision = Literal["float32", "float16", "bfloat16"]
TokenPlace = Literal["auto", "device", "memory", "disk"]


class BaseMappingConfig(Section):
    """What every family of mappings from layer tokens to voxels is told."""

    token_size: Count = Field(8, description="local tokens are resized to this many rows and columns")
    held_out: float = Field(
        0.2, gt=0, lt=1, description="share of the stimuli (or of the sessions) that is only scored on"
    )
    held_out_by: Literal["seed", "session", "shared", "list"] = Field(
        "seed",
        description="drawn stimuli, drawn sessions, stimuli that all subjects saw, or those of held_out_list",
    )
    held_out_list: str | None = Field(
        None, min_length=1, description="text or JSON file of the held-out stimuli (`harness.splits`)"
    )
    floor_refits: int = Field(4, ge=2, description="more fits of step 0, for the noise floor")
    bootstrap: bool = Field(True, description="every fit draws its training stimuli with replacement")

    @model_validator(mode="after")
    def _list_is_given_where_it_is_used(self) -> BaseMappingConfig:
        if (self.held_out_by == "list") != (self.held_out_list is not None):
            found = f"held_out_by {self.held_out_by} and held_out_list {self.held_out_list or 'null'}"
            raise ValueError(f"found {found}, accepted: held_out_list just where held_out_by is list")
        return self


class TrainedMappingConfig(BaseMappingConfig):
    """What families that are trained by gradients are told."""

    n_channels: Count = Field(32, description="width of the bottleneck (D)")
    batch_size: Count = Field(64, description="stimuli")
    lr: float = Field(5e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    steps: Count = 200
    regularization: float = Field(0.1, ge=0)
    regularization_steps: Count = Field(100, description="over which the regularizer decays linearly to zero")
    beta: float = Field(0.1, gt=0, description="of the smooth-L1 loss, in units of the response")
    voxels_per_pass: Count = Field(
        50_000, description="bounds memory: more voxels are fitted in several passes per step, same result"
    )
    token_precision: TokenPrecision = Field("float16", description="of the tokens that are kept to be fitted")
    token_place: TokenPlace = Field(
        "auto", description="where they are kept; auto: the device, main memory or a file, whichever has room"
    )
    validation: float = Field(
        0.0, ge=0, lt=1, description="share of the training stimuli that choose the best state; 0: the last"
    )
    patience: Count | None = Field(
        None,
        description="ends a fit after so many twentieths of its steps without a better state; null: never",
    )
    warm_steps: Count | None = Field(
        None, description="all fits begin from one of step 0, for so many steps; null: each begins anew"
    )

    @model_validator(mode="after")
    def _patience_needs_validation(self) -> TrainedMappingConfig:
        if self.patience is not None and not self.validation:
            raise ValueError(
                f"found patience {self.patience} without validation; accepted: validation above 0"
            )
        return self


class FactorTopyConfig(TrainedMappingConfig):
    """Selectors are smooth functions of the voxel's place in the brain (`harness.factortopy`)."""

    family: Literal["factortopy"] = "factortopy"


class FreeSelectorsConfig(TrainedMappingConfig):
    """Every voxel has selectors of its own (`harness.families.free_selectors`)."""

    family: Literal["free_selectors"] = "free_selectors"


class AttentionConfig(TrainedMappingConfig):
    """Every voxel attends to tokens (`harness.families.attention`)."""

    token_size: Count = Field(
        4, description="local tokens are resized so; time and memory go with its square"
    )
    family: Literal["attention"] = "attention"


class LayerRidgeConfig(BaseMappingConfig):
    """Ridge regression from every layer (`harness.families.layer_ridge`)."""

    family: Literal["layer_ridge"] = "layer_ridge"
    pool: Count = Field(2, description="local tokens are averaged to this many rows and columns")
    n_components: Count | None = Field(
        None, description="principal components of a layer; null: all features"
    )
    alphas: list[Annotated[float, Field(gt=0)]] = Field(
        [10.0**power for power in range(-3, 6)],
        min_length=1,
        description="penalties to choose from, per voxel and layer; a stimulus has mean square 1",
    )
    n_folds: int = Field(5, ge=2, description="of the cross-validation over training stimuli")
    temperature: float = Field(
        0.02, gt=0, description="difference of cross-validated R² that makes a layer e times as probable"
    )


MappingConfig = FactorTopyConfig | FreeSelectorsConfig | LayerRidgeConfig | AttentionConfig


class StudyConfig(Section):
    """A name for runs that belong together, and which there are."""

    name: Name = "default"
    grid: dict[str, list[Any]] = Field({}, description="setting or group -> values; one run per combination")


class FinetuneConfig(Section):
    """AdamW with linear warm-up and cosine decay."""

    epochs: Count = 10
    max_steps: Count | None = Field(None, description="ends earlier, after this many optimizer steps")
    batch_size: Count = Field(32, description="images per step, over processes and accumulation")
    lr: float = Field(5e-4, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="share of the steps")
    clip_norm: float | None = Field(1.0, gt=0, description="of the gradient; null: never clipped")
    precision: Literal["no", "fp16", "bf16"] = "no"
    accumulation: Count = Field(1, description="backward passes per optimizer step")
    num_workers: int = Field(0, ge=0, description="of the data loader, per process")

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

    tasks: list[Name] = Field(["shapes", "textures", "counts"], description="may be empty")
    n_train: Count = 1000
    n_test: Count = 500
    steps: Count = Field(200, description="of the linear probe's optimizer")
    knn_k: Count = 10
    batch_size: Count = Field(128, description="images per forward pass")


class Config(Section):
    """Everything a run is made from."""

    seed: Seed = Field(0, description="of head, batches, augmentation, probes and mappings")
    runs_dir: str = Field("runs", min_length=1, description="relative: to the current folder")
    backbone: BackboneConfig
    task: TaskConfig
    method: MethodConfig = Field(discriminator="name")
    brain: BrainConfig = Field(discriminator="name")
    mapping: MappingConfig = Field(discriminator="family")
    study: StudyConfig
    finetune: FinetuneConfig = FinetuneConfig()
    snapshots: SnapshotsConfig = SnapshotsConfig()
    probes: ProbesConfig = ProbesConfig()
