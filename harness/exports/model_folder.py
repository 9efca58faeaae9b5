"""From a run's snapshot to a folder that timm, open_clip or peft loads, with a model card.

    palimpsest export runs/<study>/<run> --format huggingface

The folder goes to ``exports/step-…/<format>/`` in the run's folder. It appears whole or not at all: first the
network is loaded back with its library and compared with the run's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import (
    BackboneConfig,
    Config,
    LoraConfig,
    tasks_in_order,
)
from harness.exports.exported_model import ExportedModel
from harness.exports.formats import MODEL_FORMATS
from harness.exports.push import check_repository
from harness.runs import (
    export_folder,
    list_snapshots,
    read_run_config,
)
from harness.storage import (
    InputError,
    read_json,
    unknown_name,
    write_atomically,
    write_json,
)

if TYPE_CHECKING:
    from harness.finetuning import TunedModel
    from tasks import Task
else:
    Task = TunedModel = Any

ABOUT = "palimpsest.json"
"""File of every model folder: where it comes from, and the names of all its files."""


def write_model(
    run: Path,
    form: str,
    step: int | None = None,
    task: str | None = None,
    output: Path | None = None,
    repository: str | None = None,
) -> list[Path]:
    """Write a snapshot as a folder of the Hugging Face hub; returns the files written.

    Parameters
    ----------
    run : Path
        Folder of a fine-tuned run.
    form : str
        One of `MODEL_FORMATS`: "huggingface", the whole network; "peft", the adapter of a LoRA run.
    step : int, optional
        Step of the snapshot; by default the last.
    task : str, optional
        Task whose head is exported, of a sequence; by default the last one trained at this step.
    output : Path, optional
        The folder; by default ``exports/step-…/<form>`` in the run's folder. An earlier export there is
        replaced.
    repository : str, optional
        ``owner/name`` on the hub, for the card.

    Returns
    -------
    list of Path
        ``README.md`` is the model card, ``palimpsest.json`` says where the model comes from.

    Raises
    ------
    InputError
        For an unknown run, step, task or format, a backbone from a user's own function, a folder that holds
        anything but an earlier export, or a network that its library cannot load as it is.
    """
    if form not in MODEL_FORMATS:
        raise unknown_name("format", form, MODEL_FORMATS)
    if repository is not None:
        check_repository(repository)
    config = read_run_config(run)
    backbone = _check_backbone(config)
    if form == "peft" and not isinstance(config.method, LoraConfig):
        raise InputError(f"--format peft: found a run with method {config.method.name}, expected lora")
    step = _choose_snapshot(run, step)
    _check_task(config, task)
    folder = (export_folder(run, step, form) if output is None else output).resolve()
    _check_folder(folder)
    exported = _read_model(config, backbone, run, step, task, repository)
    # after the checks: these import torch, timm and more
    from harness.exports.model_card import Kind, collect_provenance, write_card

    with write_atomically(folder) as temporary:
        temporary.mkdir()
        library, inside = _write_files(temporary, form, exported)
        write_card(exported, Kind(library, inside)).save(temporary / "README.md")
        names = sorted(path.name for path in temporary.iterdir())
        about = {"format": form, **collect_provenance(exported), "files": names}
        write_json(temporary / ABOUT, about)
    return [*(folder / name for name in names), folder / ABOUT]


def _write_files(folder: Path, form: str, exported: ExportedModel) -> tuple[str, bool]:
    """Write all but the card; return the library that loads it and whether the head is in the network."""
    if form == "peft":
        from harness.exports.peft_files import write_adapter

        return "peft", write_adapter(folder, exported)
    if exported.backbone_config.library == "timm":
        from harness.exports.timm_files import write_timm

        return "timm", write_timm(folder, exported)
    from harness.exports.open_clip_files import write_open_clip

    write_open_clip(folder, exported)
    return "open_clip", False


def _check_backbone(config: Config) -> BackboneConfig:
    if isinstance(config.backbone, BackboneConfig):
        return config.backbone
    other = config.backbone
    raise InputError(
        f"backbone.library: found {other.library} ({getattr(other, 'function', other.name)}), expected timm "
        "or open_clip: the hub's libraries cannot build another network "
        "(harness.finetuning.read_backbone returns it as it is)"
    )


def _choose_snapshot(run: Path, step: int | None) -> int:
    steps = [found for found in list_snapshots(run) if found > 0]
    if not steps:
        raise InputError(f"{run}: found no snapshot after step 0, expected the folder of a fine-tuned run")
    if step is not None and step not in steps:
        unchanged = " (the pretrained backbone, unchanged)" if step == 0 else ""
        raise InputError(f"--step: found {step}{unchanged}, expected {', '.join(map(str, steps))}")
    return steps[-1] if step is None else step


def _check_task(config: Config, task: str | None) -> None:
    names = [one.name for one in tasks_in_order(config.task)]
    if task is not None and task not in names:
        raise unknown_name("task of this run", task, names)


def _check_folder(folder: Path) -> None:
    """Raise an `InputError` for a folder that holds anything but an earlier export."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"--output: {folder}: found a file, expected a folder")
    about = folder / ABOUT
    own = {ABOUT, *read_json(about).get("files", ())} if about.exists() else set()
    others = sorted(path.name for path in folder.iterdir() if path.name not in own)
    if others:
        raise InputError(
            f"--output: {folder}: found {others[0]}, which no export wrote; expected a new or empty folder, "
            "or an earlier export"
        )


def _read_model(
    config: Config, backbone: BackboneConfig, run: Path, step: int, task: str | None, repository: str | None
) -> ExportedModel:
    from harness.backbones import describe_origin
    from harness.finetuning import read_tuned
    from tasks import load_tasks

    tasks = load_tasks(tasks_in_order(config.task))
    model = read_tuned(config, run, step, tasks)
    place = _choose_head(model, tasks, task, step)
    return ExportedModel(
        config=config,
        backbone_config=backbone,
        run=run,
        step=step,
        task=tasks[place],
        place=place,
        model=model,
        backbone=model.merged_backbone(),
        origin=describe_origin(backbone),
        repository=repository,
    )


def _choose_head(model: TunedModel, tasks: Sequence[Task], task: str | None, step: int) -> int:
    """Index of a task's head, or of the last one that is trained: heads start at zero."""
    names = [one.name for one in tasks]
    trained = [place for place, head in enumerate(model.heads) if bool(head.weight.any())]
    if task is None or len(tasks) == 1:
        return trained[-1] if trained else 0
    if names.index(task) not in trained:
        known = ", ".join(names[place] for place in trained)
        raise InputError(
            f"--task: found {task}, whose head is not trained yet at step {step}; expected {known}"
        )
    return names.index(task)
