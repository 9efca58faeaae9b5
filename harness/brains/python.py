"""A brain that a user's own function returns, checked and completed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.brains.brain import (
    Brain,
    fingerprint,
)
from harness.brains.usable import keep_usable
from harness.config import PythonBrainConfig
from harness.storage import (
    InputError,
    as_rgb,
    call_function,
    content_hash,
    describe_array,
    hash_pixels,
)


def load_python(config: PythonBrainConfig) -> Brain:
    """Call the function that a configuration names, and check the brain that it returns.

    A function may leave the brain's name and fingerprint empty. Unusable voxels are dropped.

    Raises
    ------
    InputError
        As `harness.storage.call_function`, or if the brain's arrays do not fit each other.
    """
    source = f"brain.function: {config.function}"
    brain = call_function("brain", config.function, config.arguments, Brain)
    _check(brain, source)
    subject = config.arguments.get("subject")
    name = brain.name or config.function.partition(":")[2] + ("" if subject is None else f"-{subject}")
    found = brain.fingerprint
    if not found:
        hashes = [hash_pixels(as_rgb(image, f"{source}: stimuli")) for image in brain.stimuli]
        found = fingerprint(content_hash(hashes), brain.responses, brain.coords)
    return keep_usable(replace(brain, name=name, fingerprint=found), source)


def _check(brain: Brain, source: str) -> None:
    """Check shapes: users may build a `Brain` without `Brain.from_arrays`."""
    for name in ("responses", "coords", "bounding_box"):
        array = getattr(brain, name)
        if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim != 2:
            found = describe_array(array) if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
            raise InputError(f"{source}: {name}: found {found}, expected a float32 array of two axes")
    n_images, n_voxels = brain.responses.shape
    shapes: dict[str, tuple[int, ...]] = {"coords": (n_voxels, 3), "bounding_box": (2, 3)}
    shapes |= dict.fromkeys(("hemisphere", "noise_ceiling"), (n_voxels,))
    shapes |= dict.fromkeys(("stimulus_ids", "n_repeats", "session", "shared"), (n_images,))
    for name, shape in shapes.items():
        array = getattr(brain, name)
        if array is not None and np.shape(array) != shape:
            raise InputError(f"{source}: {name}: found shape {np.shape(array)}, expected {shape}")
    if len(brain.stimuli) != n_images:
        raise InputError(f"{source}: stimuli: found {len(brain.stimuli)}, expected {n_images}")
    for roi in brain.rois:
        if not len(roi.voxels) or roi.voxels.min() < 0 or roi.voxels.max() >= n_voxels:
            raise InputError(f"{source}: ROI {roi.name}: expected voxel numbers from 0 to {n_voxels - 1}")
