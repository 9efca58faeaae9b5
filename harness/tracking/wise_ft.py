"""WiSE-FT (Wortsman et al., CVPR 2022): weights between pretrained and fine-tuned, measured like snapshots.

    θ_α = (1 − α) θ₀ + α θ₁

The head is interpolated too; it is zero-initialised, so α scales its logits. For LoRA, α scales the
adapters' product, which amounts to the same. FLYP's head is computed from the interpolated text tower. The
measurements are stored in ``<run>/wise_ft``, laid out like a run whose step is α in percent. Rows go to the
run's own ``results.jsonl`` as ``wise_ft.<stage>/<place>/<measure>`` at that step. Forgetting and rewiring
refer to α = 0.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from harness.backbones import encoder_hash
from harness.config import Config
from harness.finetuning import (
    TunedModel,
    read_manifest,
    read_snapshot,
    tune,
    write_snapshot,
)
from harness.mappings import (
    load_mapping,
    save_mapping,
)
from harness.measures import INTERPOLATED
from harness.runs import (
    Inputs,
    Journal,
    controls_folder,
    evidence_file,
    is_finished,
    list_snapshots,
    mapping_folder,
    probes_file,
    read_probes,
    reference_file,
    snapshot_folder,
    split_file,
    start_folder,
    step_0_folders,
    subject_folder,
    wise_ft_folder,
    write_probes,
)
from harness.storage import (
    InputError,
    content_hash,
    write_atomically,
)
from harness.tracking.evidence import copy_of_step
from harness.tracking.results import (
    derive_rows,
)
from harness.tracking.store.tracked_run import TrackedRun
from harness.tracking.tracker import measure

ALPHAS = tuple(tenth / 10 for tenth in range(11))


def interpolate(start: dict[str, Tensor], end: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """(1 − α) start + α end of a snapshot's state; the ends are exact.

    A LoRA adapter is a product of two factors, and the second is zero-initialised: only that one is
    interpolated. Counters come from the end.
    """
    return {
        name: torch.lerp(start[name], tensor, alpha)
        if tensor.is_floating_point() and ".lora_A." not in name
        else tensor
        for name, tensor in end.items()
    }


def percents(alphas: Sequence[float]) -> list[int]:
    """Alphas in percent, ends included; an `InputError` for one outside 0 to 1 or not a whole percent."""
    for alpha in alphas:
        if not 0 <= alpha <= 1 or abs(100 * alpha - round(100 * alpha)) > 1e-6:
            raise InputError(f"--alphas: found {alpha:g}, expected 0 to 1 in steps of 0.01")
    return sorted({0, 100, *(round(100 * alpha) for alpha in alphas)})


def write_curve(
    run: Path, model: TunedModel, pretrained: str, steps: Sequence[int], labels: Sequence[str | None]
) -> None:
    """Write the weights at every α, and copy the measurements of the ends.

    Parameters
    ----------
    run : Path
        A finished run.
    model : TunedModel
        Tuned by the run's method.
    pretrained : str
        Hash of the pretrained encoder.
    steps : sequence of int
        α in percent.
    labels : sequence of str or None
        Labels of the run's subjects.
    """
    curve, last = wise_ft_folder(run), list_snapshots(run)[-1]

    def read_state(step: int) -> dict[str, Tensor]:
        read_snapshot(snapshot_folder(run, step), model, pretrained)
        return {name: tensor.clone() for name, tensor in model.changing_state().items()}

    start, end = read_state(0), read_state(last)
    for step in steps:
        if not snapshot_folder(curve, step).exists():
            model.load_changing_state(interpolate(start, end, step / 100))
            manifest = read_manifest(snapshot_folder(run, last))
            found = content_hash(model.changing_state())
            write_snapshot(
                snapshot_folder(curve, step), model, replace(manifest, step=step, weights_hash=found)
            )
    for own_step, there_step in ((0, 0), (last, 100)):
        if probes_file(run, own_step).exists() and not probes_file(curve, there_step).exists():
            write_probes(curve, there_step, read_probes(run, own_step))
    for label in labels:
        own, there = subject_folder(run, label), subject_folder(curve, label)
        known = {
            split_file(own): split_file(there),
            start_folder(own): start_folder(there),
            controls_folder(own): controls_folder(there),
            reference_file(own, 0): reference_file(there, 0),
            **{folder: mapping_folder(there, 0).with_name(folder.name) for folder in step_0_folders(own)},
        }
        for source, target in known.items():
            if source.exists() and not target.exists():
                with write_atomically(target) as temporary:
                    (shutil.copytree if source.is_dir() else shutil.copy)(source, temporary)
        # under another step, so written anew
        if not mapping_folder(there, 100).exists():
            save_mapping(load_mapping(mapping_folder(own, last), True), mapping_folder(there, 100))
        for file in (evidence_file, reference_file):
            source, target = file(own, last), file(there, 100)
            if source.exists() and not target.exists():
                copy_of_step(source, target)


def measure_curve(
    config: Config, run: Path, alphas: Sequence[float], inputs: Inputs, accelerator: Accelerator
) -> None:
    """Measure the weights at every α, and add the rows to the run's results.

    `inputs` belong to the curve's folder, `wise_ft_folder`.

    Raises
    ------
    InputError
        For an unfinished run, or an invalid α.
    """
    steps = percents(alphas)
    if not is_finished(run):
        raise InputError(f"{run}: found an unfinished run, expected one that was fine-tuned and tracked")
    if accelerator.is_main_process:
        tasks, backbone = inputs.tasks, inputs.backbone
        model = tune(backbone, [task.n_classes for task in tasks], config.method, config.seed, tasks)
        labels = [subject.label for subject in inputs.brains.subjects]
        write_curve(run, model, encoder_hash(backbone), steps, labels)
    accelerator.wait_for_everyone()
    curve = wise_ft_folder(run)
    measured = measure(config, curve, inputs, accelerator)
    if accelerator.is_main_process:
        with Journal(run / "results.jsonl") as journal:
            for step, values in derive_rows(config, curve, inputs.brains, measured):
                journal.log(step, {f"{INTERPOLATED}{name}": value for name, value in values.items()})
        TrackedRun(config, run).forward("FINISHED")
    accelerator.wait_for_everyone()
