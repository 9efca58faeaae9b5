"""Settings of tasks, by the source of their images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from harness.config.base import (
    LATER,
    Count,
    Name,
    Section,
    Seed,
)
from harness.config.python import (
    PythonSection,
    name_by_function,
)
from harness.config.shifts import SHIFT_NAMES, check_shifts


def _as_text(value: object) -> object:
    """YAML reads the split of a column of folds, 0, as a number."""
    return str(value) if isinstance(value, int) else value


SplitName = Annotated[str, BeforeValidator(_as_text), Field(min_length=1)]


class ClassPart(Section):
    """Classes of one stage of a class-incremental sequence; ``task.classes_per_stage`` writes it."""

    of: Name = Field(description="name of the whole task")
    n_classes: Count = Field(description="classes of the whole task")
    classes: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        strict=False, min_length=2, description="the stage's classes, as numbers of the whole task's"
    )


class BaseTaskConfig(Section):
    """Settings of every source of tasks: which images are used."""

    name: Name
    n_train: Count | None = Field(None, description="training images; null: all")
    n_test: Count | None = Field(None, description="test images; null: all")
    n_per_class: Count | None = Field(
        None,
        description="training images per class; a larger number includes a smaller one's images; null: all",
    )
    seed: Seed = Field(0, description="of the draw of images and of the split")
    leaks: Literal["report", "drop", "error"] = Field(
        "report", description="test images that are also training images: log, drop, or stop"
    )
    shifts: tuple[str, ...] = Field(
        (),
        description="distribution shifts to measure: corruptions, or noise, blur, weather, digital, or one "
        "of them; of tasks of the shapes world also world, or textures, colours, backgrounds, "
        "sizes, combinations",
        strict=False,  # lists too, where a validator before this one has read the JSON
        json_schema_extra=LATER,
    )
    classes_per_stage: int | None = Field(
        None,
        ge=2,
        description="makes a sequence of stages with so many classes each; null: one task with all classes",
        json_schema_extra=LATER,
    )
    class_order_seed: Seed | None = Field(
        None,
        description="of the order in which classes come into stages; null: as in the data",
        json_schema_extra=LATER,
    )
    n_classes: Count | None = Field(
        None,
        description="number of classes, for classes_per_stage where no other setting says it",
        json_schema_extra=LATER,
    )
    part: ClassPart | None = Field(
        None, description="the stage of a sequence, written by classes_per_stage", json_schema_extra=LATER
    )

    @model_validator(mode="after")
    def _shifts_exist(self) -> BaseTaskConfig:
        check_shifts(self.shifts)
        return self

    @model_validator(mode="after")
    def _one_number_of_training_images(self) -> BaseTaskConfig:
        if self.n_train is not None and self.n_per_class is not None:
            found = f"n_train {self.n_train} and n_per_class {self.n_per_class}"
            raise ValueError(f"found {found}, expected one of them (task.n_train=null)")
        return self


class EmbeddedTaskConfig(BaseTaskConfig):
    """A task that ships with the project (`tasks.load.NAMES`)."""

    source: Literal["embedded"] = "embedded"
    image_size: int = Field(64, ge=8, description="edge of the images, pixels")
    held_out: bool = Field(
        False,
        description="whether combinations of shape, colour and texture that pretraining never saw are left "
        "out of all images but those of the shift combinations; only in the shapes world",
        json_schema_extra=LATER,
    )


class ExternalTaskConfig(BaseTaskConfig):
    """Settings of every external source: splits and class names."""

    train: SplitName = Field("train", description="name of the training split")
    test: SplitName | None = Field(
        None, description="name of the test split; null: test, else validation, valid or val, else test_share"
    )
    test_share: float = Field(
        0.2, gt=0, lt=1, description="share of the images to split off if there is no test split"
    )
    class_names: tuple[str, ...] | None = Field(
        None, min_length=1, description="as they read in a sentence, by class; null: as in the data"
    )
    templates: tuple[str, ...] = Field(
        ("a photo of a {}.",), description="prompt templates, {} is the class name; []: no zero-shot"
    )

    @model_validator(mode="after")
    def _templates_have_one_place(self) -> ExternalTaskConfig:
        for template in self.templates:
            if template.replace("{}", "", 1).count("{") or template.count("{}") != 1:
                raise ValueError(f"found template {template!r}, expected a sentence with one {{}}")
        return self


class LabelConfig(ExternalTaskConfig):
    """Settings of sources with label columns."""

    image_column: str = Field("image", min_length=1)
    label_column: str = Field("label", min_length=1)
    label_columns: tuple[str, ...] | None = Field(
        None, min_length=1, description="a column of 0 and 1 per label, instead of label_column"
    )
    separator: str | None = Field(
        None, min_length=1, description="between an image's labels, if one column holds several"
    )
    multi_label: bool = Field(False, description="whether an image may have several labels, or none")
    no_label: str | None = Field(
        None, min_length=1, description='label that means no label, such as "No Finding"'
    )
    classes: tuple[str, ...] | None = Field(
        None, min_length=1, description="labels as the data spells them, in order; null: sorted"
    )
    group_column: str | None = Field(
        None,
        min_length=1,
        description="images of one value (a patient) stay together when a test split is drawn",
    )

    @model_validator(mode="after")
    def _several_labels_are_said(self) -> LabelConfig:
        for name in ("label_columns", "separator", "no_label"):
            if getattr(self, name) is not None and not self.multi_label:
                raise ValueError(f"found {name} without multi_label, expected multi_label=true with it")
        if self.label_columns is not None and self.separator is not None:
            raise ValueError("found label_columns and separator, expected one of them")
        return self


class ImagefolderTaskConfig(ExternalTaskConfig):
    """Folders of images, one per class (`tasks.imagefolder`)."""

    source: Literal["imagefolder"] = "imagefolder"
    root: str = Field(min_length=1, description="folder of train/ and test/, or of the class folders")
    classes: tuple[str, ...] | None = Field(
        None, min_length=1, description="the class folders in order; null: sorted by name"
    )


class TableTaskConfig(LabelConfig):
    """A table of image files and their labels (`tasks.table`)."""

    source: Literal["table"] = "table"
    table: str = Field(min_length=1, description="csv, tsv or parquet file with a row per image")
    test_table: str | None = Field(
        None, min_length=1, description="the same for the test images, if they are in another file"
    )
    root: str | None = Field(
        None, min_length=1, description="folder that file names start from; null: the table's"
    )
    split_column: str | None = Field(
        None, min_length=1, description="holds the split of every row, train or test"
    )
    allow_outside_root: bool = Field(
        False, description="whether listed files may lie outside root, by .., an absolute path or a link"
    )

    @model_validator(mode="after")
    def _one_way_to_split(self) -> TableTaskConfig:
        if self.test_table is not None and self.split_column is not None:
            raise ValueError("found test_table and split_column, expected one of them")
        return self


class HubTaskConfig(LabelConfig):
    """A data set on the Hugging Face hub, or a copy of one (`tasks.hub`)."""

    source: Literal["hub"] = "hub"
    repository: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)?$", description="owner/name on the hub")
    subset: str | None = Field(None, min_length=1, description="name of one of its configurations")
    revision: str | None = Field(None, min_length=1, description="commit, branch or tag; null: the newest")
    root: str | None = Field(
        None, min_length=1, description="folder with a copy of the repository; null: hub or its cache"
    )


class MedmnistTaskConfig(ExternalTaskConfig):
    """A MedMNIST data set as an npz file (`tasks.medmnist`)."""

    source: Literal["medmnist"] = "medmnist"
    flag: str = Field(min_length=1, description="MedMNIST's name of the data set, such as pathmnist")
    size: Literal[28, 64, 128, 224] = Field(28, description="edge of the images, pixels")
    root: str | None = Field(
        None, min_length=1, description="folder of the npz files; null: ~/.medmnist, where medmnist puts them"
    )
    multi_label: bool = Field(False, description="whether an image may have several labels, or none")


class ImagenetTaskConfig(ExternalTaskConfig):
    """ImageNet-1k and its natural shifts (`tasks.imagenet`)."""

    source: Literal["imagenet"] = "imagenet"
    root: str | None = Field(
        None, min_length=1, description="folder of train/ and val/ with a folder per WordNet id, or of these"
    )
    repository: str | None = Field(
        None, pattern=r"^[\w.-]+(/[\w.-]+)?$", description="owner/name on the hub, instead of root"
    )
    label_column: str = Field("label", min_length=1, description="of data sets of the hub: ids or indices")
    variants: dict[Name, str] = Field(
        {},
        description="natural shifts to measure: name in results → folder, or hub:owner/name, of ImageNet-V2, "
        "-R, -A, -Sketch or ObjectNet",
    )

    def __hash__(self) -> int:
        """Hash of all settings: pydantic's own cannot hash a dictionary."""
        return hash(self.model_dump_json())

    @model_validator(mode="after")
    def _one_place(self) -> ImagenetTaskConfig:
        if (self.root is None) == (self.repository is None):
            found = "neither" if self.root is None else "both"
            raise ValueError(f"found {found} of root and repository, expected one of them")
        for name in self.variants:
            if name in SHIFT_NAMES:
                raise ValueError(f"found {name} in variants, which is a shift's name; expected another one")
        return self


class PythonTaskConfig(PythonSection, BaseTaskConfig):
    """A task that a user's own function returns (`docs/extending.md`)."""

    source: Literal["python"] = "python"
    name: Name = Field(description="name in results; default: module.function")
    multi_label: bool = Field(False, description="whether an image may have several labels, or none")

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, values: Any) -> Any:
        return name_by_function(values)


TaskConfig = (
    EmbeddedTaskConfig
    | ImagefolderTaskConfig
    | TableTaskConfig
    | HubTaskConfig
    | MedmnistTaskConfig
    | ImagenetTaskConfig
    | PythonTaskConfig
)


class SequenceConfig(Section):
    """Tasks to fine-tune on one after the other, as in ``task=[digits,textures]``."""

    source: Literal["sequence"] = "sequence"
    tasks: tuple[Annotated[TaskConfig, Field(discriminator="source")], ...] = Field(
        min_length=2, description="in order; overrides of task apply to each"
    )

    @model_validator(mode="after")
    def _every_task_once(self) -> SequenceConfig:
        names = [task.name for task in self.tasks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"found {name} {names.count(name)} times, expected every task once")
        return self

    @property
    def whole(self) -> str | None:
        """Name of the task whose classes the tasks divide among them; None if they are tasks of their own."""
        wholes = {task.part.of if task.part is not None else None for task in self.tasks}
        return wholes.pop() if len(wholes) == 1 else None

    @property
    def name(self) -> str:
        """Names of the tasks, such as ``digits+textures``; of many, the first and the number of others.

        A class-incremental sequence has that of the whole task and the number of stages: ``digits-5stages``.
        """
        if self.whole is not None:
            return f"{self.whole}-{len(self.tasks)}stages"
        whole = "+".join(task.name for task in self.tasks)
        # part of file names, which are limited to 255 characters
        return whole if len(whole) <= 100 else f"{self.tasks[0].name}+{len(self.tasks) - 1}more"


def tasks_in_order(task: TaskConfig | SequenceConfig) -> tuple[TaskConfig, ...]:
    """Return the tasks that a run is fine-tuned on, one or several."""
    return task.tasks if isinstance(task, SequenceConfig) else (task,)


def main_measure(task: TaskConfig) -> Literal["accuracy", "auroc"]:
    """Return the headline measure of a task: mean AUROC if multi-label, else accuracy."""
    return "auroc" if getattr(task, "multi_label", False) else "accuracy"
