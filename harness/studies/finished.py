"""Inputs of a study's finished runs, compared with what the runs recorded; each input is read once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from harness.config import (
    Config,
    TaskConfig,
    tasks_in_order,
)
from harness.runs import (
    Brains,
    check_inputs,
    list_subjects,
    load_probes,
    run_folder,
)


def _read_task(task: TaskConfig) -> dict[str, str]:
    from tasks import load_task

    return {"fingerprint": load_task(**task.model_dump()).fingerprint}


class InputCheck:
    """Compares inputs with the manifests of finished runs."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def check(self, config: Config) -> None:
        """Compare the inputs of a finished run; an `InputError` names one that has changed since."""
        # takes seconds to import
        from harness.backbones import (
            encoder_hash,
            load_backbone,
        )

        folder = run_folder(config)
        if not (folder / "manifest.json").exists():
            return
        tasks = {
            task.name: self._once(f"task {task.model_dump_json()}", partial(_read_task, task))
            for task in tasks_in_order(config.task)
        }
        probes = self._once(
            f"probes {config.probes.model_dump_json()} {sorted(tasks)} {config.seed}",
            lambda: {task.name: {"fingerprint": task.fingerprint} for task in load_probes(config)},
        )
        brain = self._once(
            f"brain {config.brain.model_dump_json()}",
            lambda: Brains(list_subjects(config.brain, folder)).fingerprint(),
        )
        encoder = self._once(
            f"backbone {config.backbone.model_dump_json()}",
            lambda: encoder_hash(load_backbone(config.backbone)),
        )
        found = {"tasks": probes | tasks, "fingerprints": {**brain, "pretrained_encoder": encoder}}
        check_inputs(folder, found)

    def _once(self, key: str, make: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]
