"""Entry point: WiSE-FT, weights between a run's pretrained and its fine-tuned ones, measured like snapshots.

    python -m harness.wise_ft runs/<study>/<run>
    accelerate launch harness/wise_ft.py runs/<study>/<run> --alphas 0.25 0.5 0.75

    θ_α = (1 − α) θ₀ + α θ₁                                          (Wortsman et al., CVPR 2022)

The head is interpolated too; as it starts at zero, that scales its logits by α. Of LoRA the additions are
scaled by α, which is the same thing; FLYP's head is made of the text tower's interpolated weights. What is
measured is kept in ``<run>/wise_ft``, laid out like a run whose step is α in percent; rows go to the run's
own ``results.jsonl`` as ``wise_ft.<stage>/<place>/<measure>`` with that step. Forgetting and rewiring are
against α = 0.
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
from harness.measures import INTERPOLATED
from harness.runs import (
    Inputs,
    Journal,
    is_finished,
    list_snapshots,
    mapping_folder,
    probes_file,
    refit_folders,
    snapshot_folder,
    split_file,
    start_folder,
    subject_folder,
    wise_ft_folder,
)
from harness.storage import (
    InputError,
    content_hash,
    write_atomically,
)
from harness.tracking.results import (
    derive_rows,
    forward_rows,
)
from harness.tracking.tracker import measure

ALPHAS = tuple(tenth / 10 for tenth in range(11))


def interpolate(start: dict[str, Tensor], end: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """(1 − α) start + α end, for what a snapshot stores; the ends are exact.

    An addition of LoRA is a product of two factors, the second of which starts at 0: only that one is
    interpolated. Counters are those of the end.
    """
    return {
        name: torch.lerp(start[name], tensor, alpha)
        if tensor.is_floating_point() and ".lora_A." not in name
        else tensor
        for name, tensor in end.items()
    }


def percents(alphas: Sequence[float]) -> list[int]:
    """α in percent, both ends included; an `InputError` for one outside 0 to 1 or between two percents."""
    for alpha in alphas:
        if not 0 <= alpha <= 1 or abs(100 * alpha - round(100 * alpha)) > 1e-6:
            raise InputError(f"--alphas: found {alpha:g}, accepted: 0 to 1, in steps of 0.01")
    return sorted({0, 100, *(round(100 * alpha) for alpha in alphas)})


def write_curve(
    run: Path, model: TunedModel, pretrained: str, steps: Sequence[int], labels: Sequence[str | None]
) -> None:
    """Write the weights at every α, and copy what is known of the ends.

    Parameters
    ----------
    run : Path
        A finished run.
    model : TunedModel
        As tuned by the run's method.
    pretrained : str
        Hash of the pretrained encoder.
    steps : sequence of int
        α in percent.
    labels : sequence of str or None
        Of the run's subjects.
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
    known = {probes_file(run, 0): probes_file(curve, 0), probes_file(run, last): probes_file(curve, 100)}
    for label in labels:
        own, there = subject_folder(run, label), subject_folder(curve, label)
        known |= {
            split_file(own): split_file(there),
            start_folder(own): start_folder(there),
            mapping_folder(own, 0): mapping_folder(there, 0),
            mapping_folder(own, last): mapping_folder(there, 100),
            **{folder: mapping_folder(there, 0).with_name(folder.name) for folder in refit_folders(own)},
        }
    for source, target in known.items():
        if source.exists() and not target.exists():
            with write_atomically(target) as temporary:
                (shutil.copytree if source.is_dir() else shutil.copy)(source, temporary)


def measure_curve(
    config: Config, run: Path, alphas: Sequence[float], inputs: Inputs, accelerator: Accelerator
) -> None:
    """Measure the weights at every α, and add what is found to the run's results.

    `inputs` are those of the curve, `harness.runs.layout.wise_ft_folder`.

    Raises
    ------
    InputError
        For a run that has not finished, or an α that is not accepted.
    """
    steps = percents(alphas)
    if not is_finished(run):
        raise InputError(f"{run}: this run has not finished; accepted: one that was fine-tuned and tracked")
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
        forward_rows(config, run)
    accelerator.wait_for_everyone()
