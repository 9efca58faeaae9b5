"""Settings of brains, by where they come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_serializer, model_validator

from harness.config.base import (
    Count,
    Name,
    Section,
    Seed,
)
from harness.config.python import PythonSection

SubjectNumber = Annotated[int, Field(ge=1, le=8)]  # of the Natural Scenes Dataset


class BaseBrainConfig(Section):
    """Settings of every source of brains: voxels and subjects."""

    rois: tuple[Name, ...] | None = Field(
        None, min_length=1, description="only voxels in one of these; null: all"
    )
    min_ceiling: float | None = Field(
        None, ge=0, le=1, description="only voxels with at least this noise ceiling; null: all"
    )
    subjects: tuple[int | str, ...] | None = None

    @field_validator("subjects", check_fields=False)
    @classmethod
    def _each_subject_is_named_once(
        cls, subjects: tuple[int | str, ...] | None
    ) -> tuple[int | str, ...] | None:
        if subjects is not None and len(set(subjects)) < len(subjects):
            raise ValueError(f"found {list(subjects)}, expected each subject once")
        return subjects

    def settings_of(self, subject: int | str) -> dict[str, Any]:
        """Return the settings that select one of several subjects."""
        raise NotImplementedError


class NumberedBrainConfig(BaseBrainConfig):
    """Subjects told apart by a number: `subject`, or the seed of a simulated one."""

    number: ClassVar[str] = "subject"

    @model_validator(mode="after")
    def _subjects_or_subject(self) -> NumberedBrainConfig:
        one = getattr(self, self.number)
        if self.subjects is not None and self.number in self.model_fields_set and one is not None:
            found = f"found {self.number} {one} and subjects {list(self.subjects)}"
            raise ValueError(f"{found}, expected one of the two settings")
        return self

    @model_serializer(mode="wrap")
    def _write_what_is_in_use(self, write: Callable[[Section], dict[str, Any]]) -> dict[str, Any]:
        # of several subjects, the number of one means nothing and could not be read back
        return {
            key: value for key, value in write(self).items() if not (self.subjects and key == self.number)
        }

    def settings_of(self, subject: int | str) -> dict[str, Any]:
        """Return the settings that select one of several subjects."""
        return {self.number: subject}


class FolderBrainConfig(BaseBrainConfig):
    """Subjects told apart by their folder or file."""

    root: str = Field(min_length=1)
    subjects: tuple[Name, ...] | None = Field(
        None,
        min_length=1,
        description="several in one run: below root, the name that would be root for each alone",
    )

    @field_validator("subjects")
    @classmethod
    def _none_has_the_name_of_their_mean(cls, subjects: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if subjects is not None and "all" in subjects:
            raise ValueError("found all, expected another name: results use it for the mean")
        return subjects

    def settings_of(self, subject: int | str) -> dict[str, Any]:
        """Return the settings that select one of several subjects."""
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
        description="folder of images to show, with subfolders; null: scenes of the shapes world",
    )
    noise_ceiling: float = Field(
        0.6, gt=0.2, lt=0.9, description="explainable share of the median voxel's variance"
    )
    seed: Seed = Field(0, description="of the subject: places, tuning, noise and pictures")
    subjects: tuple[Seed, ...] | None = Field(
        None, min_length=1, description="several in one run: their seeds; null: only seed"
    )


class Algonauts2023Config(NumberedBrainConfig):
    """A subject of the Algonauts 2023 challenge (`harness.brains.algonauts.subject`)."""

    name: Literal["algonauts2023"] = "algonauts2023"
    root: str = Field(min_length=1, description="a subject's folder, or the folder of subj01 to subj08")
    subject: int | None = Field(
        None, ge=1, le=8, description="which one, if root holds several; null: root is the subject's"
    )
    subjects: tuple[SubjectNumber, ...] | None = Field(
        None, min_length=1, description="several in one run, if root holds them; null: only subject"
    )
    test_images: bool = Field(False, description="whether to use the test images, if their responses exist")


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
        None, min_length=1, description="several in one run; null: only subject"
    )
    preparation: Literal["func1pt8mm", "func1mm", "fsaverage", "nativesurface"] = "func1pt8mm"
    betas: Name = Field("betas_fithrf_GLMdenoise_RR", description="folder of responses in the preparation")
    sessions: tuple[Count, ...] | None = Field(
        None, min_length=1, description="which, counted from 1; null: all"
    )
    mask: Name | None = Field(
        None, description="atlas whose labels above 0 are the voxels; null: nsdgeneral, else streams"
    )
    atlases: tuple[Name, ...] | None = Field(
        None, description="whose labels become ROIs; null: all of visual areas and streams"
    )
    standardise: bool = Field(True, description="z-score every voxel within every session")
    average: Literal["stimulus", "session", "none"] = Field(
        "stimulus", description="repeats of a picture over all sessions, within a session, or not at all"
    )
    stimuli: str | None = Field(
        None, min_length=1, description="path of nsd_stimuli.hdf5, if it is not in root"
    )


class GrayordinatesConfig(FolderBrainConfig):
    """Maps of responses on grayordinates, as CIFTI files (`harness.brains.grayordinates.subject`)."""

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
    allow_outside_root: bool = Field(
        False,
        description="whether listed files may lie outside images, by .., an absolute path or a link",
    )
    cortex: Literal["visual", "all"] = Field("visual", description="which areas of MMP 1.0")
    subcortex: bool = Field(False, description="whether to use voxels below the cortex")
    standardise: bool = Field(True, description="z-score every grayordinate within every session")
    average: Literal["stimulus", "session", "none"] = Field(
        "stimulus", description="repeats of a picture over all sessions, within a session, or not at all"
    )


class PythonBrainConfig(PythonSection, BaseBrainConfig):
    """A brain that a user's own function returns (`docs/extending.md`)."""

    name: Literal["python"] = "python"
    subjects: tuple[int | Name, ...] | None = Field(
        None, min_length=1, description="several in one run: each is passed to the function as subject=…"
    )

    @model_validator(mode="after")
    def _subjects_or_subject(self) -> PythonBrainConfig:
        if self.subjects is not None and "subject" in self.arguments:
            found = f"arguments.subject {self.arguments['subject']} and subjects {list(self.subjects)}"
            raise ValueError(f"found {found}, expected one of the two settings")
        if self.subjects is not None and "all" in self.subjects:
            raise ValueError("found subject all, expected another name: results use it for the mean")
        return self

    def settings_of(self, subject: int | str) -> dict[str, Any]:
        """Return the settings that select one of several subjects."""
        return {"arguments": {**self.arguments, "subject": subject}}


BrainConfig = (
    SimulatedConfig | Algonauts2023Config | ArraysConfig | NsdConfig | GrayordinatesConfig | PythonBrainConfig
)


def one_by_one(config: BrainConfig) -> tuple[BrainConfig, ...]:
    """Return the settings of each subject on its own."""
    if config.subjects is None:
        return (config,)
    alone = [{"subjects": None, **config.settings_of(subject)} for subject in config.subjects]
    return tuple(config.model_copy(update=settings) for settings in alone)
