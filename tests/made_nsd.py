"""A small copy of the Natural Scenes Dataset with its own layout, names, types and axis orders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel
import numpy as np
from scipy.io import savemat

SHAPE = (6, 7, 5)
N_SESSIONS = 4  # in the design; the last is held out
N_TRIALS = 10
N_PICTURES = 12  # per subject
N_SHARED = 4
N_ALL = 20  # in the data set
AFFINE = np.array([[1.8, 0, 0, -4.5], [0, 1.8, 0, -5.4], [0, 0, 1.8, -3.6], [0, 0, 0, 1]])
TABLES = {
    "nsdgeneral": "0 Unknown\n1 nsdgeneral\n",
    "prf-visualrois": "0 Unknown\n1 V1v\n2 V1d\n3 V2v\n4 V2d\n5 V3v\n6 V3d\n7 hV4\n",
    "floc-faces": "0 Unknown\n1 OFA\n2 FFA-1\n3 FFA-2\n4 mTL-faces\n5 aTL-faces\n",
    "streams": "0 Unknown\n1 early\n2 midventral\n3 midlateral\n4 midparietal\n"
    "5 ventral\n6 lateral\n7 parietal\n",
}


@dataclass(frozen=True)
class MadeNsd:
    """Written data: labels by atlas, [X, Y, Z]; stored numbers by session, [X, Y, Z, trials]."""

    root: Path
    masterordering: np.ndarray
    subjectim: np.ndarray
    labels: dict[str, np.ndarray]
    stored: dict[int, np.ndarray]
    ncsnr: np.ndarray
    pictures: np.ndarray

    @property
    def betas(self) -> Path:
        return self.root / "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"

    @property
    def rois(self) -> Path:
        return self.root / "nsddata/ppdata/subj01/func1pt8mm/roi"

    def table(self, atlas: str) -> Path:
        return self.root / f"nsddata/freesurfer/subj01/label/{atlas}.mgz.ctab"

    @property
    def design(self) -> Path:
        return self.root / "nsddata/experiments/nsd/nsd_expdesign.mat"

    @property
    def stimuli(self) -> Path:
        return self.root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"

    @property
    def mask(self) -> np.ndarray:
        return self.labels["nsdgeneral"] > 0

    def shown(self, session: int) -> np.ndarray:
        """Return the pictures (0-based) of a session's trials, as the manual words it."""
        trials = np.arange((session - 1) * N_TRIALS, session * N_TRIALS)
        return np.array([self.subjectim[0, self.masterordering[0, trial] - 1] - 1 for trial in trials])


def write_nsd(
    root: Path, hdf5: tuple[int, ...] = (), shape: tuple[int, int, int] = SHAPE, n_copies: int = 1
) -> MadeNsd:
    """Write sessions 1 to 3 of subject 1 in func1pt8mm; those in `hdf5` as MATLAB would, the others as NIfTI.

    Every trial occurs `n_copies` times.
    """
    rng = np.random.default_rng(5)
    masterordering, subjectim = write_design(root, rng, n_copies)
    labels = _make_labels(shape)
    stored = {
        session: rng.integers(-900, 900, (*shape, N_TRIALS * n_copies)).astype(np.int16)
        for session in (1, 2, 3)
    }
    made = MadeNsd(
        root=root,
        masterordering=masterordering,
        subjectim=subjectim,
        labels=labels,
        stored=stored,
        ncsnr=rng.uniform(0.1, 1.5, shape).astype(np.float32),
        pictures=write_stimuli(root, rng),
    )
    for session, values in stored.items():
        path = made.betas / f"betas_session{session:02d}"
        if session in hdf5:
            write_hdf5(path.with_suffix(".hdf5"), values)
        else:
            write_nifti(path.with_suffix(".nii.gz"), values)
    write_nifti(made.betas / "ncsnr.nii.gz", made.ncsnr)
    left = np.indices(shape)[0] < shape[0] // 2
    for atlas, values in labels.items():
        write_nifti(made.rois / f"{atlas}.nii.gz", values.astype(np.int16))
        write_nifti(made.rois / f"lh.{atlas}.nii.gz", np.where(left, values, -1).astype(np.int16))
        write_nifti(made.rois / f"rh.{atlas}.nii.gz", np.where(left, -1, values).astype(np.int16))
        made.table(atlas).parent.mkdir(parents=True, exist_ok=True)
        made.table(atlas).write_text(TABLES[atlas])
    return made


def write_design(root: Path, rng: np.random.Generator, n_copies: int) -> tuple[np.ndarray, np.ndarray]:
    """Write the design matrices as MATLAB does: doubles, counted from 1."""
    path = root / "nsddata/experiments/nsd/nsd_expdesign.mat"
    shared = np.sort(rng.permutation(N_ALL)[:N_SHARED]) + 1
    others = np.setdiff1d(np.arange(1, N_ALL + 1), shared)
    own = [others[:8], others[-8:]]
    subjectim = np.stack([np.concatenate([shared, rng.permutation(part)]) for part in own])
    order = np.concatenate([np.arange(1, N_PICTURES + 1)] * 3 + [np.arange(1, 5)])
    masterordering = np.repeat(rng.permutation(order), n_copies)[None]
    # three runs of five slots, one or two of them empty
    stimpattern = np.ones((N_SESSIONS, 3, 5))
    stimpattern[:, 0, 2] = stimpattern[:, 1, [0, 4]] = stimpattern[:, 2, 1:3] = 0
    stimpattern = np.tile(stimpattern, (1, n_copies, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(
        path,
        {
            "masterordering": masterordering.astype(np.float64),
            "subjectim": subjectim.astype(np.float64),
            "sharedix": shared[None].astype(np.float64),
            "stimpattern": stimpattern,
            "basiccnt": np.zeros((3, N_SESSIONS)),
        },
    )
    return masterordering, subjectim


def write_stimuli(root: Path, rng: np.random.Generator) -> np.ndarray:
    """Write pictures as h5py sees them: [n, height, width, 3] bytes."""
    path = root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = rng.integers(0, 256, (N_ALL, 9, 8, 3)).astype(np.uint8)
    with h5py.File(path, "w") as file:
        file.create_dataset("imgBrick", data=pictures)
    return pictures


def write_nifti(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)


def write_hdf5(path: Path, values: np.ndarray, chunks: tuple[int, ...] | str | None = "matlab") -> None:
    """Write as MATLAB's h5create and h5write do: axes reversed, one chunk per voxel with all its trials."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seen = values.transpose()
    layout = (seen.shape[0], *([1] * (seen.ndim - 1))) if chunks == "matlab" else chunks
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", data=seen, chunks=layout)


def _make_labels(shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Make a posterior block of voxels, visual areas as slices along y, a face area, and streams across."""
    inside = np.zeros(shape, dtype=bool)
    inside[1:5, 0:6, 1:4] = True
    y, z = np.indices(shape)[1:]
    labels = {"nsdgeneral": np.where(inside, 1, 0)}
    labels["prf-visualrois"] = np.where(inside & (y < 4), y * 2 + (z > 1) + 1, 0)
    labels["prf-visualrois"][labels["prf-visualrois"] == 8] = 7
    labels["floc-faces"] = np.where(inside & (y > 2), (z > 2) + 1, 0)
    labels["streams"] = np.where(inside & (y < 3), 1, np.where(inside & (y > 3), 5, 0))
    outside = np.indices(shape)[0] == 5  # not cortex
    return {name: np.where(outside, -1, values) for name, values in labels.items()}


@dataclass(frozen=True)
class MadeSurface:
    """Surfaces of subject 1: labels [vertices] by hemisphere and atlas; values [vertices, trials] by session
    and hemisphere."""

    root: Path
    preparation: str
    labels: dict[str, dict[str, np.ndarray]]
    percent: dict[int, dict[str, np.ndarray]]
    ncsnr: dict[str, np.ndarray]
    nearest: dict[str, np.ndarray]

    @property
    def betas(self) -> Path:
        return self.root / f"nsddata_betas/ppdata/subj01/{self.preparation}/betas_fithrf_GLMdenoise_RR"

    def home(self, surface: str) -> Path:
        return self.root / f"nsddata/freesurfer/{surface}/label"

    @property
    def transforms(self) -> Path:
        return self.root / "nsddata/ppdata/subj01/transforms"


NATIVE = {"lh": 420, "rh": 390}  # vertices of the subject's own surface


def write_surface(root: Path, preparation: str) -> MadeSurface:
    """Sessions 1 and 2 on fsaverage (floats, MGH) or on the subject's own surface (×300, HDF5)."""
    rng = np.random.default_rng(6)
    write_design(root, rng, 1)
    write_stimuli(root, rng)
    sizes = NATIVE if preparation == "nativesurface" else {"lh": 163842, "rh": 163842}
    made = MadeSurface(root, preparation, {}, {1: {}, 2: {}}, {}, {})
    for side, size in sizes.items():
        own = np.zeros((2, NATIVE[side]), np.int64)
        own[0, 40:300] = 1
        own[1, 60:200] = np.arange(140) // 20 + 1
        made.labels[side] = {"nsdgeneral": own[0], "prf-visualrois": own[1]}
        home = made.home("subj01")
        for atlas, labels in made.labels[side].items():
            write_mgh(home / f"{side}.{atlas}.mgz", labels.astype(np.float32))
        if preparation == "fsaverage":
            general = np.zeros(size, np.int64)
            general[rng.permutation(size)[:70]] = 1
            streams = np.where(general > 0, rng.integers(0, 8, size), 0)
            for atlas, labels in (("nsdgeneral", general), ("streams", streams)):
                write_mgh(made.home("fsaverage") / f"{side}.{atlas}.mgz", labels.astype(np.float32))
            made.nearest[side] = rng.integers(1, NATIVE[side] + 1, size)
            made.transforms.mkdir(parents=True, exist_ok=True)
            write_mgh(
                made.transforms / f"{side}.white-to-fsaverage.mgz", made.nearest[side].astype(np.float32)
            )
            made.labels[side] = {"nsdgeneral": general, "streams": streams}
            made.labels[side]["prf-visualrois"] = own[1][made.nearest[side] - 1]
        else:
            sphere = rng.standard_normal((size, 3))
            sphere *= 100 / np.linalg.norm(sphere, axis=1, keepdims=True)
            path = root / f"nsddata/freesurfer/subj01/surf/{side}.sphere.reg"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.freesurfer.write_geometry(path, sphere, np.array([[0, 1, 2]]))
        made.ncsnr[side] = rng.uniform(0.1, 1.5, size).astype(np.float32)
        write_mgh(made.betas / f"{side}.ncsnr.mgh", made.ncsnr[side])
        for session in (1, 2):
            stored = rng.integers(-900, 900, (size, N_TRIALS), dtype=np.int16)
            made.percent[session][side] = stored / np.float32(300)
            name = f"{side}.betas_session{session:02d}"
            if preparation == "fsaverage":
                write_mgh(made.betas / f"{name}.mgh", made.percent[session][side])
            else:
                write_hdf5(made.betas / f"{name}.hdf5", stored)
    for surface, atlases in (("subj01", ("nsdgeneral", "prf-visualrois")), ("fsaverage", ("streams",))):
        for atlas in atlases:
            made.home(surface).mkdir(parents=True, exist_ok=True)
            (made.home(surface) / f"{atlas}.mgz.ctab").write_text(TABLES[atlas])
    return made


def write_mgh(path: Path, values: np.ndarray) -> None:
    """Write vertices, or vertices × trials, as FreeSurfer does: (vertices, 1, 1, trials), big-endian."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.MGHImage(values.reshape(len(values), 1, 1, *values.shape[1:]), np.eye(4)), path)
