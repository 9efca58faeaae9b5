"""Backbones, brains and tasks by the names of their configurations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.brains import load_brain as load_brain_of
from harness.config import (
    AnyBackboneConfig,
    BrainConfig,
    TaskConfig,
    load_option,
)
from harness.storage import InputError

if TYPE_CHECKING:
    from harness.backbones import Backbone
    from harness.brains import Brain
    from tasks import Task
else:
    # brains need neither torch nor datasets, which take seconds to import
    Backbone = Brain = Task = Any


def load_backbone(name: str | AnyBackboneConfig, **settings: Any) -> Backbone:
    """Load a pretrained network, in evaluation mode.

    Parameters
    ----------
    name : str or BackboneConfig
        A file of ``configs/backbone``, such as ``"dinov2_s14"`` (``palimpsest config --list backbone``), or a
        configuration of your own.
    **settings
        Settings of that section, such as ``image_size=224`` (pixels) or ``checkpoint="weights.safetensors"``.

    Returns
    -------
    Backbone
        ``backbone(images)`` gives features [n_images, n_features] of preprocessed images, ``backbone.tokens``
        the tokens of every layer, ``backbone.preprocessing(pictures)`` the input for PIL images.

    Raises
    ------
    InputError
        For an unknown name or setting, weights that do not fit, or an unreachable hub.

    Examples
    --------
    >>> backbone = harness.load_backbone("mini_clip")
    >>> len(backbone.layers), backbone.n_features
    (8, 128)
    """
    from harness.backbones import load_backbone as load

    return load(_choose("backbone", name, settings))


def load_brain(name: str | BrainConfig, **settings: Any) -> Brain:
    """Load the brain of one subject.

    Parameters
    ----------
    name : str or BrainConfig
        A file of ``configs/brain``: ``"simulated"``, ``"nsd"``, ``"algonauts2023"``, ``"grayordinates"``,
        ``"arrays"`` or ``"python"``; or a configuration of your own.
    **settings
        Settings of that section, such as ``root="/data/nsd"``, ``subject=2``, ``rois=["V1", "hV4"]``.

    Returns
    -------
    Brain
        ``brain.responses`` [n_images, n_voxels], ``brain.coords`` [n_voxels, 3] in mm, ``brain.stimuli``,
        ``brain.rois``.

    Raises
    ------
    InputError
        For an unknown name or setting, data that are missing or broken, or several subjects.

    Examples
    --------
    >>> brain = harness.load_brain("simulated", n_voxels=300, n_stimuli=100)
    >>> brain.responses.shape
    (100, 300)
    """
    return load_brain_of(_choose("brain", name, settings))


def load_task(name: str | TaskConfig, **settings: Any) -> Task:
    """Load a labelled image data set.

    Parameters
    ----------
    name : str or TaskConfig
        A file of ``configs/task``, such as ``"digits"`` or ``"imagefolder"``, or a configuration of your own.
    **settings
        Settings of that section, such as ``n_train=200``, ``n_test=100``, ``root="/data/birds"``.

    Returns
    -------
    Task
        ``task.train`` and ``task.test`` are data sets with the columns ``image`` and ``label``.

    Raises
    ------
    InputError
        For an unknown name or setting, or data that are missing or broken.

    Examples
    --------
    >>> task = harness.load_task("digits", n_train=100, n_test=50)
    >>> len(task.train), task.n_classes
    (100, 10)
    """
    from tasks import load_task as load

    return load(**_choose("task", name, settings).model_dump())


def _choose(group: str, name: Any, settings: dict[str, Any]) -> Any:
    if isinstance(name, str):
        return load_option(group, name, settings)
    if settings:
        raise InputError(
            f"{group}: found a configuration and settings {', '.join(settings)}, expected one of them"
        )
    return name
