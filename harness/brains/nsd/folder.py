"""Paths in a copy of the Natural Scenes Dataset."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.config import NsdConfig
from harness.storage import (
    InputError,
    as_input_error,
    unknown_name,
    user_path,
)

log = logging.getLogger(__name__)

SIDES = {"L": "lh.", "R": "rh."}
BETAS = "nsddata_betas/ppdata"
DATA = "nsddata"


@dataclass(frozen=True)
class NsdFolder:
    """Paths of a subject's files in one preparation.

    Attributes
    ----------
    root : Path
        Folder of ``nsddata``, ``nsddata_betas`` and ``nsddata_stimuli``, as published.
    subject : str
        For example ``subj01``.
    preparation : str
        ``func1pt8mm``, ``func1mm``, ``fsaverage`` or ``nativesurface``.
    betas : Path
        Folder of responses and signal-to-noise ratios.
    design, stimuli : Path
    """

    root: Path
    subject: str
    preparation: str
    betas: Path
    design: Path
    stimuli: Path

    @property
    def rois(self) -> Path:
        """Folder of label volumes."""
        return self.root / DATA / "ppdata" / self.subject / self.preparation / "roi"

    @property
    def transforms(self) -> Path:
        """Folder of transforms between the subject's spaces."""
        return self.root / DATA / "ppdata" / self.subject / "transforms"

    def labels(self, surface: str) -> Path:
        """Folder of label surfaces and label names, of ``fsaverage`` or a subject."""
        return self.root / DATA / "freesurfer" / surface / "label"

    def names(self, atlas: str) -> list[Path]:
        """Files that may hold the label names of an atlas, in order of preference."""
        surfaces = (self.subject, "fsaverage")
        return [self.labels(surface) / f"{atlas}.mgz.ctab" for surface in surfaces]

    def session(self, number: int, side: str = "") -> Path | None:
        """Find the responses of a session; on a surface, `side` is ``"lh."`` or ``"rh."``; None if missing.

        HDF5 is preferred, because it can be read within a mask.
        """
        for suffix in ("hdf5", "nii.gz", "nii", "mgh", "mgz"):
            path = self.betas / f"{side}betas_session{number:02d}.{suffix}"
            if path.exists():
                return path
        return None

    def fingerprinted(self, sessions: Iterable[Path], atlases: Iterable[str]) -> list[Path]:
        """All files a brain of these sessions and atlases may be read from, without the stimuli, sorted."""
        found = {self.design, *sessions, *self.betas.glob("*ncsnr.*")}
        for atlas in atlases:
            found |= set(self.rois.glob(f"*{atlas}.nii.gz")) | set(self.names(atlas))
            for surface in (self.subject, "fsaverage"):
                found |= set(self.labels(surface).glob(f"?h.{atlas}.mgz"))
        if self.preparation == "fsaverage":
            found |= set(self.transforms.glob("?h.white-to-fsaverage.mgz"))
        if self.preparation == "nativesurface":
            found |= set((self.root / DATA / "freesurfer" / self.subject / "surf").glob("?h.sphere.reg"))
        return sorted(path for path in found if path.is_file())

    def relative(self, path: Path) -> str:
        """Path relative to the root; unchanged for stimuli stored elsewhere."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()


def open_folder(config: NsdConfig) -> NsdFolder:
    """Find the files of a subject.

    Raises
    ------
    InputError
        If the root, subject, preparation or betas are missing; it lists those available.
    """
    root = user_path(config.root)
    if not root.is_dir():
        raise InputError(f"brain.root: {root}: no such folder")
    for name in (DATA, BETAS):
        if not (root / name).is_dir():
            near = next((folder for folder in _near(root) if (folder / BETAS).is_dir()), None)
            hint = f"; did you mean {near}?" if near is not None and near != root else ""
            raise InputError(
                f"brain.root: {root}: found no {name}, expected a folder with nsddata, "
                f"nsddata_betas and nsddata_stimuli{hint}"
            )
    subject = f"subj{config.subject:02d}"
    folder = root / BETAS
    for setting, name in (("subject", subject), ("preparation", config.preparation), ("betas", config.betas)):
        if not (folder / name).is_dir():
            there = [path.name for path in folder.iterdir() if path.is_dir()]
            raise InputError(f"brain.{setting}: {folder}: {unknown_name('folder', name, there)}")
        folder = folder / name
    given = config.stimuli
    return NsdFolder(
        root=root,
        subject=subject,
        preparation=config.preparation,
        betas=folder,
        design=root / DATA / "experiments/nsd/nsd_expdesign.mat",
        stimuli=user_path(given) if given else root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5",
    )


def read_names(paths: Iterable[Path]) -> tuple[Path, dict[int, str]] | None:
    """Read label names by number from the first table that exists; None if none does.

    A line has a number, a name and optionally a FreeSurfer colour (four numbers).

    Raises
    ------
    InputError
        If a line has another format, or a number or name occurs twice.
    """
    for path in paths:
        if not path.is_file():
            continue
        names: dict[int, str] = {}
        with as_input_error(path, "table of label names"):
            lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            match = re.fullmatch(r"\s*(-?\d{1,9})\s+(\S.*?)((?:\s+\d+){4})?\s*", line)
            if match is None:
                raise InputError(f"{path}: line {number}: found {line[:60]!r}, expected a number and a name")
            label, name = int(match[1]), re.sub(r"[^A-Za-z0-9_.-]+", "_", match[2])
            if label in names or name in names.values():
                raise InputError(f"{path}: line {number}: found label {label} or name {name} twice")
            names[label] = name
        return path, names
    return None


def _near(root: Path) -> list[Path]:
    """Candidates for a suggestion: all parents and direct subfolders."""
    return [*root.parents, *sorted(path for path in root.iterdir() if path.is_dir())]
