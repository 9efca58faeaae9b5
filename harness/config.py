"""Typed configuration: the only place that knows defaults, units and ranges.

Settings are composed by Hydra from the groups in ``configs/`` and overrides such as ``backbone=mini_random``
(an option of a group) or ``finetune.lr=1e-4`` (a value), then checked by the models below. A file in
``configs/`` states what makes an option what it is; everything else comes from here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import harness
from harness.errors import InputError, exit_with_one_line, unknown_name
from harness.files import content_hash

REPOSITORY = Path(harness.__file__).parents[1]
CONFIGS = REPOSITORY / "configs"
GROUPS = ("backbone", "task", "method", "brain", "mapping", "study")

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


def load_config(overrides: list[str]) -> Config:
    """Compose ``configs/`` with `overrides`, such as ``["backbone=mini_random", "finetune.lr=1e-4"]``.

    Raises
    ------
    InputError
        Where an override is malformed, an option or a setting does not exist, or a value is not accepted.
    """
    composed = [_as_hydra_override(text) for text in overrides]
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            container = OmegaConf.to_container(compose("config", composed), resolve=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise InputError(f"configuration in {CONFIGS}: {' '.join(str(error).split())}") from None
    config = _validate(container)
    for axis, values in config.study.grid.items():
        _check_grid_axis(axis, values)
    return config


def read_config(path: Path) -> Config:
    """Read what `to_yaml` wrote; an `InputError` names a file that is missing or broken, and the setting."""
    try:
        return _validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def group_options(group: str) -> list[str]:
    """Names of the files of a group, as they are given on the command line."""
    folder = CONFIGS / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def to_yaml(config: Config) -> str:
    """Every setting, as `read_config` reads it."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def determining(config: Config) -> dict[str, Any]:
    """The settings that determine the results of a run, nested: not where it is kept or how fast it runs."""
    return config.model_dump(
        mode="json",
        exclude={
            "runs_dir": True,
            "study": True,
            "finetune": {"num_workers"},
            "snapshots": {"resume_every"},
            "mapping": {"voxels_per_pass", "token_place"},
        },
    )


def config_hash(config: Config) -> str:
    """SHA-256 of the settings that determine the results."""
    return content_hash(determining(config))


def flatten(config: Config) -> dict[str, str]:
    """The settings that determine the results by dotted name, each written as an override would give it."""

    def leaves(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from leaves(f"{prefix}.{key}" if prefix else key, inner)
        else:
            yield prefix, value if isinstance(value, str) else json.dumps(value)

    return dict(leaves("", determining(config)))


def settings(section: type[Section] = Config, prefix: str = "") -> Iterator[str]:
    """Dotted names of all sections and settings that there are, whichever options are chosen."""
    for name, field in section.model_fields.items():
        yield prefix + name
        for option in get_args(field.annotation) or (field.annotation,):
            if isinstance(option, type) and issubclass(option, Section):
                yield from settings(option, f"{prefix}{name}.")


def _as_hydra_override(text: str) -> str:
    """Check one override; values may be given for settings that no file mentions, hence ``++``."""
    malformed = InputError(f"override {text!r}: accepted is one key=value, such as finetune.lr=1e-4")
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        raise malformed from None
    group = override.key_or_group
    if not group or override.is_delete() or override.is_sweep_override() or override.package is not None:
        raise malformed
    if group.partition(".")[0] not in Config.model_fields:
        raise _unknown_setting(group)
    if group not in GROUPS:
        return "++" + text.lstrip("+")
    option = str(override.value())
    if option not in group_options(group):
        raise unknown_name(group, option, group_options(group))
    return f"{group}={option}"


def _validate(container: Any) -> Config:
    """Check a nested dictionary of settings; the first thing wrong is an `InputError` naming its setting."""
    try:
        # through JSON, where pydantic's strict mode takes lists but neither "3" for 3 nor true for 1
        return Config.model_validate_json(json.dumps(container))
    except ValidationError as failure:
        errors = failure.errors(include_url=False)
        # a name that is mistyped is also one that is missing: the former says more
        error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    known = set(settings())
    names: list[str] = []
    for part in error["loc"][:-1]:
        # pydantic also names the option chosen (method.lora.rank), which is no setting
        names += [str(part)] if ".".join([*names, str(part)]) in known else []
    setting = ".".join([*names, *map(str, error["loc"][-1:])])
    if error["type"] == "value_error" and setting not in known:
        setting = ".".join(names)  # of an option as a whole
    if error["type"] == "extra_forbidden":
        raise _unknown_setting(setting)
    if error["type"] == "value_error":
        raise InputError(f"{setting}: {error['ctx']['error']}")
    found = "nothing" if error["type"] == "missing" else json.dumps(error["input"])
    accepted = error["msg"].removeprefix("Input should be ")
    if error["type"] == "missing":
        accepted = _describe(error["loc"]) or accepted
    accepted = accepted.removeprefix("String should ")
    if error["type"] in ("model_type", "model_attributes_type"):
        accepted = "a section of settings"
    elif error["type"].startswith("union_tag"):
        tag = error["ctx"]["discriminator"].strip("'")
        setting, found = f"{setting}.{tag}", json.dumps(error["ctx"].get("tag"))
        accepted = error["ctx"].get("expected_tags", "the name of an option")
    raise InputError(f"{setting}: found {found}, accepted: {accepted}")


def _describe(place: tuple[int | str, ...]) -> str | None:
    """What the setting at a place of a validation error says of itself; the place also names options."""
    options: list[Any] = [Config]
    description = None
    for part in place:
        fields = [option.model_fields[part] for option in options if part in option.model_fields]
        if fields:
            annotation = fields[0].annotation
            description, options = fields[0].description, [*(get_args(annotation) or (annotation,))]
        else:
            tags = [[field.default for field in option.model_fields.values()] for option in options]
            options = [option for option, known in zip(options, tags, strict=True) if part in known]
    return description


def _unknown_setting(setting: str) -> InputError:
    known = set(settings())
    parent, _, leaf = setting.rpartition(".")
    if setting in known:
        return InputError(f"{setting}: not a setting of the {parent} that is chosen")
    elsewhere = {name for name in known if name.endswith(f".{leaf}")}
    siblings = {name for name in known if name.rpartition(".")[0] == parent}
    return unknown_name("setting", setting, elsewhere or siblings or known)


def _check_grid_axis(axis: str, values: list[Any]) -> None:
    if axis.partition(".")[0] in ("study", "runs_dir"):
        raise InputError(f"study.grid: found {axis}, accepted: settings that determine a run's results")
    if axis not in set(settings()):
        raise InputError(f"study.grid: {_unknown_setting(axis)}")
    if not values:
        raise InputError(f"study.grid.{axis}: found [], accepted: one value or more")
    for value in values:
        if axis in GROUPS and value not in group_options(axis):
            raise unknown_name(axis, str(value), group_options(axis))


def main() -> None:
    """Print the configuration that the overrides on the command line resolve to."""
    print(to_yaml(load_config(sys.argv[1:])), end="")


if __name__ == "__main__":
    exit_with_one_line(main)
