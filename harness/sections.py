"""What can be set: every section of the configuration with its defaults, units and ranges.

`harness.config` composes and checks them. A file in ``configs/`` states what makes an option what it is;
everything else comes from here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_serializer,
    model_validator,
)

# names become folders, tags and parts of metric names
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
SubjectNumber = Annotated[int, Field(ge=1, le=8)]  # of the Natural Scenes Dataset


class Section(BaseModel):
    """Base of all settings: never changed, no unknown keys, no silent conversions, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PreprocessingConfig(Section):
    """What images are turned into, where it is not what the weights were trained with."""

    mean: tuple[float, float, float] | None = Field(None, description="of RGB in 0 to 1; null: the weights'")
    std: tuple[float, float, float] | None = Field(None, description="of RGB in 0 to 1; null: the weights'")
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = Field(
        None, description="null: the weights'"
    )
    crop_pct: float | None = Field(
        None, gt=0, le=1, description="share of the edge that the centre crop keeps; null: the weights'"
    )
    crop_mode: Literal["center", "squash", "border"] | None = Field(
        None, description="how oblong images become square, as in timm; null: the weights'"
    )


class BackboneConfig(Section):
    """A pretrained network and where it comes from (`docs/backbones.md`)."""

    library: Literal["timm", "open_clip"]
    model: str = Field(description="the library's name of the architecture")
    name: Name
    weights: str | None = Field(None, description="hub tag, which also tells preprocessing and activation")
    checkpoint: str | None = Field(
        None,
        min_length=1,
        description="file of weights, used instead of the hub; relative: to the current folder, or else the "
        "repository. With neither weights nor checkpoint the network is untrained",
    )
    objective: Name = Field(description="what it was pretrained for: contrastive, supervised, none, ...")
    size: Name | None = Field(None, description="class of size: S, B, L, ..., to compare alike with alike")
    image_size: int | None = Field(
        None, ge=8, description="edge of the input, pixels; null: what the weights were trained with"
    )
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    quick_gelu: bool | None = Field(
        None, description="open_clip: OpenAI's GELU; null: what weights and model say of themselves"
    )
    text: bool = Field(True, description="open_clip: whether the text tower is kept, for zero-shot")
    seed: Seed = Field(0, description="of the initialisation, where there are no weights")

    @property
    def untrained(self) -> bool:
        """Whether the network stays as its initialisation leaves it."""
        return self.weights is None and self.checkpoint is None

    @model_validator(mode="after")
    def _an_objective_needs_weights(self) -> BackboneConfig:
        if self.untrained and self.objective != "none":
            raise ValueError(
                f"found neither weights nor checkpoint for {self.name} with objective {self.objective}; "
                "accepted: a hub tag as weights, a file as checkpoint, or objective none (untrained)"
            )
        return self


class BaseTaskConfig(Section):
    """What every source of tasks is told: which of its images are used."""

    name: Name
    n_train: Count | None = Field(None, description="training images; null: all there are")
    n_test: Count | None = Field(None, description="test images; null: all there are")
    n_per_class: Count | None = Field(
        None, description="training images of every class, among those of any larger number; null: all"
    )
    seed: Seed = Field(0, description="of the draw of images and of the split")
    leaks: Literal["report", "drop", "error"] = Field(
        "report", description="of test images that are also training images: said, left out, or refused"
    )

    @model_validator(mode="after")
    def _one_number_of_training_images(self) -> BaseTaskConfig:
        if self.n_train is not None and self.n_per_class is not None:
            found = f"n_train {self.n_train} and n_per_class {self.n_per_class}"
            raise ValueError(f"found {found}, accepted: one of them (task.n_train=null)")
        return self


class EmbeddedTaskConfig(BaseTaskConfig):
    """A task that ships with the project (`tasks.NAMES`)."""

    source: Literal["embedded"] = "embedded"
    image_size: int = Field(64, ge=8, description="edge of the images as the task hands them over, pixels")


class OutsideTaskConfig(BaseTaskConfig):
    """What every task of images from outside is told: splits and what classes are called."""

    train: str = Field("train", min_length=1, description="name of the training split")
    test: str | None = Field(
        None,
        min_length=1,
        description="name of the test split; null: test, else validation, valid or val, else split off",
    )
    test_share: float = Field(
        0.2, gt=0, lt=1, description="share of the images that is split off where there is no test split"
    )
    class_names: tuple[str, ...] | None = Field(
        None, min_length=1, description="as they read in a sentence, by class; null: as the data has them"
    )
    templates: tuple[str, ...] = Field(
        ("a photo of a {}.",), description="sentences for zero-shot, {} is the class name; []: no zero-shot"
    )

    @model_validator(mode="after")
    def _templates_have_one_place(self) -> OutsideTaskConfig:
        for template in self.templates:
            if template.replace("{}", "", 1).count("{") or template.count("{}") != 1:
                raise ValueError(f"found template {template!r}, accepted: a sentence with one {{}}")
        return self


class LabelConfig(OutsideTaskConfig):
    """What tasks are told whose labels stand in columns."""

    image_column: str = Field("image", min_length=1)
    label_column: str = Field("label", min_length=1)
    label_columns: tuple[str, ...] | None = Field(
        None, min_length=1, description="a column of 0 and 1 per label, instead of label_column"
    )
    separator: str | None = Field(
        None, min_length=1, description="between the labels of an image, where its text holds several"
    )
    multi_label: bool = Field(False, description="whether an image may have several labels, or none")
    no_label: str | None = Field(
        None, min_length=1, description='label that says that there is none, such as "No Finding"'
    )
    classes: tuple[str, ...] | None = Field(
        None, min_length=1, description="labels as the data spells them, in order; null: sorted"
    )
    group_column: str | None = Field(
        None,
        min_length=1,
        description="images of one value (a patient) stay together where a test split is drawn",
    )

    @model_validator(mode="after")
    def _several_labels_are_said(self) -> LabelConfig:
        for name in ("label_columns", "separator", "no_label"):
            if getattr(self, name) is not None and not self.multi_label:
                raise ValueError(f"found {name} without multi_label, accepted: multi_label=true with it")
        if self.label_columns is not None and self.separator is not None:
            raise ValueError("found label_columns and separator, accepted: one of them")
        return self


class ImagefolderTaskConfig(OutsideTaskConfig):
    """Folders of images, one per class (`tasks.imagefolder`)."""

    source: Literal["imagefolder"] = "imagefolder"
    root: str = Field(min_length=1, description="folder of train/ and test/, or of the class folders")


class TableTaskConfig(LabelConfig):
    """A table of image files and their labels (`tasks.table`)."""

    source: Literal["table"] = "table"
    table: str = Field(min_length=1, description="csv, tsv or parquet file with a row per image")
    test_table: str | None = Field(
        None, min_length=1, description="the same of the test images, where they stand in a file of their own"
    )
    root: str | None = Field(
        None, min_length=1, description="folder that file names start from; null: the table's"
    )
    split_column: str | None = Field(
        None, min_length=1, description="says which split a row is of, by the names train and test"
    )

    @model_validator(mode="after")
    def _one_way_to_split(self) -> TableTaskConfig:
        if self.test_table is not None and self.split_column is not None:
            raise ValueError("found test_table and split_column, accepted: one of them")
        return self


class HubTaskConfig(LabelConfig):
    """A data set of the Hugging Face hub, or a copy of one (`tasks.hub`)."""

    source: Literal["hub"] = "hub"
    repository: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)?$", description="owner/name on the hub")
    subset: str | None = Field(None, min_length=1, description="name of one of its configurations")
    revision: str | None = Field(None, min_length=1, description="commit, branch or tag; null: the newest")
    root: str | None = Field(
        None, min_length=1, description="folder with a copy of the repository; null: hub or its cache"
    )


class MedmnistTaskConfig(OutsideTaskConfig):
    """One of the MedMNIST data sets, as its npz file (`tasks.medmnist`)."""

    source: Literal["medmnist"] = "medmnist"
    flag: str = Field(min_length=1, description="MedMNIST's name of the data set, such as pathmnist")
    size: Literal[28, 64, 128, 224] = Field(28, description="edge of the images, pixels")
    root: str | None = Field(
        None, min_length=1, description="folder of the npz files; null: ~/.medmnist, where medmnist puts them"
    )
    multi_label: bool = Field(False, description="whether an image may have several labels, or none")


TaskConfig = EmbeddedTaskConfig | ImagefolderTaskConfig | TableTaskConfig | HubTaskConfig | MedmnistTaskConfig


def main_measure(task: TaskConfig) -> Literal["accuracy", "auroc"]:
    """The measure that stands for a task in tables and curves: mean AUROC if there are several labels."""
    return "auroc" if getattr(task, "multi_label", False) else "accuracy"


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
    """What methods that keep old answers are told: what these are on (`harness.methods.old_head`)."""

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


class BaseBrainConfig(Section):
    """What every source of brains is told: which of its voxels are used, and whose."""

    rois: tuple[Name, ...] | None = Field(
        None, min_length=1, description="only voxels in one of these; null: all there are"
    )
    min_ceiling: float | None = Field(
        None, ge=0, le=1, description="only voxels of this noise ceiling or more; null: all there are"
    )
    subjects: tuple[int | str, ...] | None = None

    @field_validator("subjects", check_fields=False)
    @classmethod
    def _each_subject_is_named_once(
        cls, subjects: tuple[int | str, ...] | None
    ) -> tuple[int | str, ...] | None:
        if subjects is not None and len(set(subjects)) < len(subjects):
            raise ValueError(f"found {list(subjects)}, accepted: each subject once")
        return subjects

    def settings_of(self, subject: int | str) -> dict[str, Any]:
        """What is set where one of several subjects is alone."""
        raise NotImplementedError


class NumberedBrainConfig(BaseBrainConfig):
    """Subjects that a number tells apart, which is `subject` or, of simulated ones, their seed."""

    number: ClassVar[str] = "subject"

    @model_validator(mode="after")
    def _subjects_or_subject(self) -> NumberedBrainConfig:
        one = getattr(self, self.number)
        if self.subjects is not None and self.number in self.model_fields_set and one is not None:
            found = f"found {self.number} {one} and subjects {list(self.subjects)}"
            raise ValueError(f"{found}, accepted: one of the two settings")
        return self

    @model_serializer(mode="wrap")
    def _write_what_is_in_use(self, write: Callable[[Section], dict[str, Any]]) -> dict[str, Any]:
        # where there are several, the number of one says nothing, and would not be read again
        return {
            key: value for key, value in write(self).items() if not (self.subjects and key == self.number)
        }

    def settings_of(self, subject: int | str) -> dict[str, Any]:
        """What is set where one of several subjects is alone."""
        return {self.number: subject}


class FolderBrainConfig(BaseBrainConfig):
    """Subjects that are told apart by where they lie."""

    root: str = Field(min_length=1)
    subjects: tuple[Name, ...] | None = Field(
        None,
        min_length=1,
        description="several in one run: names of what root would be of each alone, below root",
    )

    @field_validator("subjects")
    @classmethod
    def _none_has_the_name_of_their_mean(cls, subjects: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if subjects is not None and "all" in subjects:
            raise ValueError("found all, accepted: any other name, as in results that one is of all subjects")
        return subjects

    def settings_of(self, subject: int | str) -> dict[str, Any]:
        """What is set where one of several subjects is alone."""
        return {"root": str(Path(self.root) / str(subject))}


class SimulatedConfig(NumberedBrainConfig):
    """The simulated subject."""

    number: ClassVar[str] = "seed"
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
    seed: Seed = Field(0, description="which subject: other places, tuning, noise and pictures")
    subjects: tuple[Seed, ...] | None = Field(
        None, min_length=1, description="several in one run: their seeds; null: the one of seed"
    )


class Algonauts2023Config(NumberedBrainConfig):
    """A subject of the Algonauts 2023 challenge (`harness.brains.algonauts2023`)."""

    name: Literal["algonauts2023"] = "algonauts2023"
    root: str = Field(min_length=1, description="folder of a subject, or the one that holds subj01 to subj08")
    subject: int | None = Field(
        None, ge=1, le=8, description="which one, where root holds several; null: root is the subject's"
    )
    subjects: tuple[SubjectNumber, ...] | None = Field(
        None, min_length=1, description="several in one run, where root holds them; null: the one of subject"
    )
    test_images: bool = Field(
        False, description="whether the test images are stimuli too, where their responses are there"
    )


class ArraysConfig(FolderBrainConfig):
    """Responses and coordinates as plain arrays (`harness.brains.arrays`)."""

    name: Literal["arrays"] = "arrays"
    root: str = Field(min_length=1, description="an npz file, or a folder of npy files")
    standardise: bool = Field(True, description="give every voxel mean 0 and variance 1 over all rows")


class NsdConfig(NumberedBrainConfig):
    """A subject of the Natural Scenes Dataset (`harness.brains.nsd.subject`)."""

    name: Literal["nsd"] = "nsd"
    root: str = Field(min_length=1, description="the folder that holds nsddata and nsddata_betas")
    subject: SubjectNumber = 1
    subjects: tuple[SubjectNumber, ...] | None = Field(
        None, min_length=1, description="several in one run; null: the one of subject"
    )
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


class GrayordinatesConfig(FolderBrainConfig):
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


def one_by_one(config: BrainConfig) -> tuple[BrainConfig, ...]:
    """The settings of every subject alone."""
    if config.subjects is None:
        return (config,)
    alone = [{"subjects": None, **config.settings_of(subject)} for subject in config.subjects]
    return tuple(config.model_copy(update=settings) for settings in alone)


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
    grid: dict[str, list[Any]] = Field(
        {},
        description="setting or group -> values; one run per combination. A value that is a mapping sets "
        "several settings together, the axis among them",
    )
    leave_out: list[Any] = Field([], description="values of the grid that are not run")


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
    backbone: BackboneConfig
    task: TaskConfig = Field(discriminator="source")
    method: MethodConfig = Field(discriminator="name")
    brain: BrainConfig = Field(discriminator="name")
    mapping: MappingConfig = Field(discriminator="family")
    study: StudyConfig
    finetune: FinetuneConfig = FinetuneConfig()
    snapshots: SnapshotsConfig = SnapshotsConfig()
    probes: ProbesConfig = ProbesConfig()
