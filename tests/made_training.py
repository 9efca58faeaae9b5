"""Small fine-tuning runs as `harness.finetune` does them, without the stages that follow."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from overrides import TINY

from harness.backbones.load import load_backbone
from harness.config.compose import load_config
from harness.config.run import Config
from harness.config.task import tasks_in_order
from harness.finetuning import loop as module
from harness.finetuning.devices import build_accelerator
from harness.finetuning.loop import finetune
from harness.runs.journal import read_rows
from tasks.load import load_task

# a timm network for tests: six blocks of width 64
SMALL = ["backbone.model=test_vit", "finetune.max_steps=4"]


load_once = functools.cache(load_task)


def train(folder: Path, *overrides: str) -> Config:
    """Fine-tune into a folder, on a task or a sequence of tasks."""
    config = load_config([*TINY, *overrides])
    tasks = [load_once(task.name, task.n_train, task.n_test) for task in tasks_in_order(config.task)]
    finetune(config, folder, tasks, load_backbone(config.backbone), build_accelerator(config.finetune))
    return config


@contextmanager
def interrupted(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Interrupt fine-tuning where a step's snapshot would be written."""
    written = module.write_snapshot

    def stop(folder, model, manifest):
        if manifest.step == step:
            raise KeyboardInterrupt
        written(folder, model, manifest)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_snapshot", stop)
        with pytest.raises(KeyboardInterrupt):
            yield


def train_until(folder: Path, step: int, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    """Fine-tune until a step's snapshot would be written, then interrupt."""
    with interrupted(step, monkeypatch):
        train(folder, *overrides)


def values(folder: Path) -> dict[tuple[str, int], float]:
    """Return the journal's values by name and step, each of which occurs once."""
    rows, _ = read_rows(folder / "results.jsonl")
    found = {(row["name"], row["step"]): row["value"] for row in rows}
    assert len(found) == len(rows)
    return found
