"""Snapshots: all that fine-tuning has changed after a number of optimizer steps, with a manifest.

A snapshot holds what the method may change (all weights, a head, adapters). It is read back into the same
pretrained backbone, which the manifest identifies by the hash of its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file
from torch import Tensor

from harness.backbones import (
    Backbone,
    encoder_hash,
    load_backbone,
)
from harness.config import (
    Config,
    tasks_in_order,
)
from harness.finetuning.methods.records import METHODS
from harness.finetuning.methods.tuned import (
    TunedModel,
    tune,
)
from harness.runs import snapshot_folder
from harness.storage import (
    InputError,
    content_hash,
    read_json,
    read_weights,
    write_atomically,
    write_json,
)
from tasks import load_tasks

if TYPE_CHECKING:
    from tasks import Task
else:
    # datasets takes seconds to import
    Task = Any


@dataclass(frozen=True)
class SnapshotManifest:
    """Description of a snapshot.

    Attributes
    ----------
    step : int
        Optimizer steps; 0 is the pretrained backbone.
    weights_hash : str
        Hash of the stored tensors.
    pretrained_hash : str
        Hash of the encoder that fine-tuning started from.
    method : str
        Determines what is stored.
    n_classes : int or list of int
        Width of the head, or of every head in a sequence of tasks.
    preprocessing : dict
        Fields of `harness.backbones.Preprocessing`.
    architecture : dict
        Library, model, and flags that the weights do not imply.
    """

    step: int
    weights_hash: str
    pretrained_hash: str
    method: str
    n_classes: int | list[int]
    preprocessing: dict[str, object]
    architecture: dict[str, object]


def write_snapshot(folder: Path, model: TunedModel, manifest: SnapshotManifest) -> None:
    """Write a snapshot, whole or not at all."""
    with write_atomically(folder) as temporary:
        temporary.mkdir()
        save_file(
            {name: tensor.contiguous() for name, tensor in model.changing_state().items()},
            temporary / "weights.safetensors",
        )
        write_json(temporary / "manifest.json", asdict(manifest))


def describe(
    model: TunedModel, step: int, method: str, pretrained_hash: str, architecture: dict[str, object]
) -> SnapshotManifest:
    """Describe a model's current state in a manifest."""
    return SnapshotManifest(
        step=step,
        weights_hash=content_hash(model.changing_state()),
        pretrained_hash=pretrained_hash,
        method=method,
        n_classes=model.n_classes,
        preprocessing=asdict(model.backbone.preprocessing),
        architecture=architecture,
    )


def read_manifest(folder: Path) -> SnapshotManifest:
    """Read a snapshot's manifest; an `InputError` names a missing or malformed file."""
    content = read_json(folder / "manifest.json")
    try:
        manifest = SnapshotManifest(**content)
    except TypeError as error:
        raise InputError(f"{folder / 'manifest.json'}: not a snapshot's manifest ({error})") from None
    named = folder.name.removeprefix("step-")
    if folder.name.startswith("step-") and named.isdecimal() and int(named) != manifest.step:
        raise InputError(f"{folder}: found the snapshot of step {manifest.step}; folders were exchanged")
    return manifest


def read_snapshot(folder: Path, model: TunedModel, pretrained_hash: str) -> SnapshotManifest:
    """Read a snapshot into a model tuned with the same method from the same pretrained backbone.

    Raises
    ------
    InputError
        If a file is missing or corrupt, or belongs to other pretrained weights, preprocessing or activations.
    """
    manifest = read_manifest(folder)
    weights = folder / "weights.safetensors"
    state: dict[str, Tensor] = read_weights(weights)
    if content_hash(state) != manifest.weights_hash:
        raise InputError(f"{weights}: content does not match the hash in its manifest; the file is corrupt")
    if manifest.pretrained_hash != pretrained_hash:
        raise InputError(
            f"{folder}: found a snapshot of other pretrained weights ({manifest.pretrained_hash[:8]}), "
            f"expected one of {pretrained_hash[:8]}"
        )
    _check_use(folder, manifest, model.backbone)
    try:
        model.load_changing_state(state)
    except RuntimeError as error:
        raise InputError(f"{weights}: does not fit the model: {' '.join(str(error).split())[:300]}") from None
    return manifest


def _check_use(folder: Path, manifest: SnapshotManifest, backbone: Backbone) -> None:
    """Check preprocessing and activation: the same weights compute something else with others."""
    ours = {**backbone.flags, **asdict(backbone.preprocessing)}
    for name, found in {**manifest.architecture, **manifest.preprocessing}.items():
        # JSON has lists where dataclasses have tuples
        expected = list(ours[name]) if isinstance(ours.get(name), tuple) else ours.get(name)
        if name in ours and (list(found) if isinstance(found, tuple) else found) != expected:
            raise InputError(f"{folder}: found a snapshot with {name} {found}, expected {expected}")


def read_tuned(config: Config, run: Path, step: int, tasks: Sequence[Task] | None = None) -> TunedModel:
    """Load a snapshot with its heads, in evaluation mode.

    Parameters
    ----------
    config : Config
        Of the run.
    run : Path
        Its folder.
    step : int
        Step of the snapshot.
    tasks : sequence of Task, optional
        The fine-tuned tasks in order; by default they are loaded if the method needs their class names.
    """
    folder = snapshot_folder(run, step)
    backbone = load_backbone(config.backbone)
    if tasks is None and METHODS[config.method.name].needs_texts:
        tasks = load_tasks(tasks_in_order(config.task))
    model = tune(backbone, read_manifest(folder).n_classes, config.method, config.seed, tasks)
    read_snapshot(folder, model, encoder_hash(backbone))
    return model.eval()


def read_backbone(config: Config, run: Path, step: int) -> Backbone:
    """Load the backbone as it was at a snapshot, with adapters merged into its weights."""
    return read_tuned(config, run, step).merged_backbone()
