"""Stimuli of the simulated subject: scenes of the shapes world, or images of a folder.

An image of any size is cropped to its central square. The subject sees it at the resolution of the shapes
world (64 × 64 pixels, bicubic with antialiasing), networks at full resolution. Visual field positions
therefore refer to the square, for the subject and for every network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
from PIL import Image

from harness.brains.brain import (
    Pictures,
    StoredPictures,
)
from harness.brains.simulated.stages import (
    N_REFERENCE,
    View,
    look_at,
    look_at_images,
    look_at_reference,
)
from harness.storage import (
    InputError,
    content_hash,
    decode_image,
    hash_images,
    list_images_below,
    merge_equal_images,
)
from tasks import (
    IMAGE_SIZE,
    render_scenes,
    sample_scenes,
)

FEWEST = 20
"""Fewest images in a folder, and lowest `brain.n_stimuli`."""


class ShownScenes:
    """Scenes of one world, whose objects are known.

    `content` is the hashed part of the stimuli; `fingerprints` are those of `Brain`.
    """

    def __init__(self, world: int, n_stimuli: int) -> None:
        self.name = ""
        self.scenes = sample_scenes(world, range(n_stimuli))
        self.content = render_scenes(self.scenes)
        self.stimuli = Pictures(self.content)
        self.stimulus_ids = np.arange(n_stimuli)
        self.fingerprints: dict[str, str] = {}

    def look(self, chunk: slice) -> View:
        """View of a slice: features of the pixels, and the objects."""
        return look_at(self.scenes[chunk], self.content[chunk])

    def look_at_reference(self) -> View:
        """View of the reference: scenes of another world, independent of the stimuli."""
        return look_at_reference()


class ShownImages:
    """Unlabelled images of a folder.

    Stimuli are `n_stimuli` files, evenly spaced in the natural order of names (``2.png`` before ``10.png``),
    so that all subfolders are shown. The reference is up to `N_REFERENCE` files of the whole folder, chosen
    in the same way.

    Raises
    ------
    InputError
        If the folder does not exist or holds too few images, or an image in use is broken.
    """

    def __init__(self, folder: Path, n_stimuli: int) -> None:
        folder = folder.absolute()
        names = list_images_below(folder)
        if len(names) < max(n_stimuli, FEWEST):
            expected = f"{FEWEST} to {len(names)}" if len(names) >= FEWEST else f"{FEWEST} images or more"
            found = f"found {n_stimuli}, but {len(names)} images in {folder}"
            raise InputError(f"brain.n_stimuli: {found}; expected {expected}")
        self.folder, self.name = folder, f"-{folder.name}"
        self.names = _space_evenly(names, n_stimuli)
        self.reference = _space_evenly(names, min(N_REFERENCE, len(names)))
        hashes = hash_images(folder, sorted({*self.names, *self.reference}))
        contents = [hashes[name] for name in self.names]
        self.fingerprints = {"images/": content_hash(hashes)}
        self.stimuli = SquareImages([folder / name for name in self.names], contents)
        self.content = self.stimuli.fingerprint
        self.stimulus_ids: np.ndarray = merge_equal_images(np.array(self.names), contents)

    def look(self, chunk: slice) -> View:
        """View of a slice: features of the pixels."""
        return _look_at_squares(self.stimuli[chunk])

    def look_at_reference(self) -> View:
        """View of the reference, independent of the number of stimuli."""
        return _look_at_squares(SquareImages([self.folder / name for name in self.reference]))


Shown = ShownScenes | ShownImages


class SquareImages(StoredPictures):
    """Central squares of images in files, decoded as RGB at every access.

    Parameters
    ----------
    paths : sequence of Path
    hashes : sequence of str
        Content hashes of the files; only the fingerprint needs them.
    """

    def __init__(self, paths: Sequence[Path], hashes: Sequence[str] = ()) -> None:
        self.paths, self.hashes = tuple(paths), tuple(hashes)

    @property
    def fingerprint(self) -> str:
        """Hash of the contents of the files, in order."""
        return content_hash("central squares", list(self.hashes))

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> SquareImages: ...
    def __getitem__(self, index: int | slice) -> Image.Image | SquareImages:
        if isinstance(index, slice):
            return SquareImages(self.paths[index], self.hashes[index])
        image = decode_image(self.paths[index])
        edge = min(image.size)
        left, top = ((length - edge) // 2 for length in image.size)
        return image.crop((left, top, left + edge, top + edge))


def _look_at_squares(images: SquareImages) -> View:
    size = (IMAGE_SIZE, IMAGE_SIZE)
    return look_at_images(
        np.stack([np.asarray(image.resize(size, Image.Resampling.BICUBIC)) for image in images])
    )


def _space_evenly(names: Sequence[str], count: int) -> list[str]:
    return [names[place * len(names) // count] for place in range(count)]
