"""Fine-tuning that another run has done: its snapshots are taken over instead of trained again.

A run whose brain, mapping or probes differ has another folder, but its network is trained in the same way.
Every finished training leaves a note in ``{runs_dir}/.trained``, named by the hash of all that determines
its snapshots.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.config import (
    Config,
    determining,
)
from harness.finetuning.methods.records import METHODS
from harness.runs import (
    Journal,
    Row,
    hash_sources,
    list_snapshots,
    read_finished_rows,
    snapshot_folder,
)
from harness.storage import (
    InputError,
    content_hash,
    read_json,
    write_atomically,
    write_json,
)

log = logging.getLogger(__name__)

# sections and settings that training does not read; with an anchor at the brain, only the last two
NOT_TRAINING = ("brain", "mapping", "probes", "evidence", "shifts")
NEVER_TRAINING = ("evidence", "shifts")
PACKAGES = ("torch", "timm", "open_clip_torch", "peft", "accelerate")


def training_note(config: Config, run: Path, manifest: Mapping[str, Any]) -> Path:
    """File that names a run with the same training; it need not exist.

    Parameters
    ----------
    config : Config
    run : Path
        The run's folder.
    manifest : mapping
        Of the run: its packages, and the fingerprints of its task and weights.
    """
    settings = determining(config)
    for task in settings["task"].get("tasks", [settings["task"]]):
        for name in ("shifts", "variants"):
            task.pop(name, None)
    anchors = METHODS[config.method.name].anchors
    prints = {
        name: value
        for name, value in manifest["fingerprints"].items()
        if anchors or not name.startswith("brain")
    }
    left_out = NEVER_TRAINING if anchors else NOT_TRAINING
    made_from = {
        "settings": {name: value for name, value in settings.items() if name not in left_out},
        "fingerprints": prints,
        "packages": {name: manifest["packages"][name] for name in PACKAGES},
        "sources": hash_sources(),
    }
    return run.parents[1] / ".trained" / f"{content_hash(made_from)[:32]}.json"


def adopt_training(config: Config, run: Path, manifest: Mapping[str, Any]) -> str | None:
    """Take over the snapshots, losses and gradient norms of a run with the same training.

    Files are linked, or copied where links are impossible, and ``trained_by.json`` names the other run. A
    run that is bound to a plan trains by itself: nothing of it may be older than the plan.

    Returns
    -------
    str or None
        The other run, ``{study}/{run}``; None if there is none, or this run has begun to train.
    """
    note = training_note(config, run, manifest)
    if not config.reuse or config.study.plan is not None or (run / "checkpoints").exists():
        return None
    try:
        found = read_json(note)
        name, steps = str(found["run"]), [int(step) for step in found["steps"]]
    except (InputError, KeyError, TypeError, ValueError):
        return None
    source = run.parents[1] / name
    present = set(list_snapshots(source))
    missing = [step for step in steps if not snapshot_folder(run, step).exists()]
    whole = (source / "results.jsonl").exists() and present.issuperset(steps)
    if not missing or not whole or source.resolve() == run.resolve():
        return None
    try:
        rows = read_finished_rows(source)
    except InputError as error:
        log.warning("warning: %s; fine-tuning again", error)
        return None
    # rows first: once all snapshots are there, nothing is missing any more
    _copy_rows(rows, run / "results.jsonl")
    write_json(run / "trained_by.json", {"run": name})
    for step in missing:
        with write_atomically(snapshot_folder(run, step)) as temporary:
            shutil.copytree(snapshot_folder(source, step), temporary, copy_function=_link)
    return name


def _copy_rows(source: Sequence[Row], target: Path) -> None:
    """Copy what training logs: the rows of its steps, gradient norms by layer, scores around boundaries."""
    rows: dict[int, dict[str, float]] = {}
    for row in source:
        if row["name"].startswith(("train/", "stability/")) or row["name"].endswith(
            ("/grad_norm", "/grad_share")
        ):
            rows.setdefault(row["step"], {})[row["name"]] = row["value"]
    with Journal(target) as journal:
        for step in sorted(rows):
            journal.log(step, rows[step])


def record_training(config: Config, run: Path, manifest: Mapping[str, Any]) -> None:
    """Leave the note of a run that has been trained to its end, unless there is one."""
    note = training_note(config, run, manifest)
    if config.reuse and not note.exists():
        name = run.resolve().relative_to(run.resolve().parents[1]).as_posix()
        write_json(note, {"run": name, "steps": list_snapshots(run)})


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        # another file system, or one without links
        shutil.copyfile(source, target)
