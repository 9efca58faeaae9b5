"""What a run's MLflow record says of the run, in MLflow's own terms: name, tags, parameters, data sets."""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.config import (
    Config,
    TaskConfig,
    config_hash,
    flatten,
    one_by_one,
    probe_tasks,
    tasks_in_order,
)
from harness.runs import (
    label_subjects,
    run_name,
)
from harness.tracking.store.keys import RUN_TAG

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput
else:
    DatasetInput = Any

# MLflow's limits
PARAM_LENGTH = 6000
DIGEST_LENGTH = 36

PARENT_TAG = "mlflow.parentRunId"


def run_title(config: Config) -> str:
    """Return the name of a run in MLflow's lists: ``mini_clip digits lora seed 3``."""
    return f"{config.backbone.name} {config.task.name} {config.method.name} seed {config.seed}"


def describe_tags(config: Config, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a run: what tells it from others, and its source under MLflow's names."""
    tags = {
        RUN_TAG: run_name(config),
        "palimpsest.hash": config_hash(config)[:8],
        "study": config.study.name,
        "backbone": config.backbone.name,
        "objective": config.backbone.objective,
        "size": config.backbone.size or "none",
        "task": config.task.name,
        "method": config.method.name,
        "seed": str(config.seed),
        "brain": config.brain.name,
        "mlflow.user": _user(),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": "harness/finetune.py",
    }
    if "code_version" in manifest:
        tags["code_version"] = str(manifest["code_version"])
    if manifest.get("commit"):
        tags["mlflow.source.git.commit"] = str(manifest["commit"])
    return tags


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        # no login name, as in some containers
        return "unknown"


def describe_params(config: Config) -> dict[str, str]:
    """Return the settings that determine a run's results, under names that need no quotes in a search.

    ``finetune.lr`` is ``finetune_lr``, and ``backbone.name`` is ``backbone``, so that
    ``params.backbone = 'mini_clip'`` finds a run. Settings without a value are absent.
    """
    params = {}
    for name, value in flatten(config).items():
        if value not in ("null", "[]", "{}", ""):
            params[re.sub(r"\W", "_", name.removesuffix(".name"))] = value[:PARAM_LENGTH]
    # a sequence's or several subjects' settings have no name of the whole
    params |= {"task": config.task.name, "brain": config.brain.name}
    return params


def describe_inputs(config: Config, manifest: Mapping[str, Any]) -> list[DatasetInput]:
    """Return the data sets of a run: tasks as ``training``, probes as ``probe``, stimuli as ``stimuli``.

    The digest is the beginning of the fingerprint of the images and labels in use, the profile their number.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    def entry(name: str, context: str, digest: str, section: Any, profile: Any) -> DatasetInput:
        kind, source = _source(section)
        data = Dataset(name, digest[:DIGEST_LENGTH], kind, json.dumps(source), profile=json.dumps(profile))
        return DatasetInput(data, [InputTag("mlflow.data.context", context)])

    known = manifest.get("tasks", {})
    inputs = [
        entry(task.name, context, known[task.name]["fingerprint"], task, _profile(known[task.name]))
        for context, task in _tasks(config)
        if task.name in known
    ]
    brains = manifest.get("fingerprints", {}).get("brain", {})
    labels = label_subjects(config.brain) or [None]
    for label, section in zip(labels, one_by_one(config.brain), strict=True):
        digest = brains if isinstance(brains, str) else brains.get(label)
        if digest:
            name = section.name if label is None else f"{section.name} {label}"
            inputs.append(entry(name, "stimuli", digest, section, {}))
    return inputs


def _tasks(config: Config) -> Iterator[tuple[str, TaskConfig]]:
    for task in tasks_in_order(config.task):
        yield "training", task
    for task in probe_tasks(config):
        yield "probe", task


def _profile(task: Mapping[str, Any]) -> dict[str, Any]:
    return {name: task[name] for name in ("n_train", "n_test", "n_classes") if name in task}


def _source(section: Any) -> tuple[str, dict[str, Any]]:
    """Return MLflow's type of a data set's source, and the source as that type writes it."""
    if repository := getattr(section, "repository", None):
        content = {"path": repository, "config_name": section.subset, "revision": section.revision}
        return "hugging_face", {name: value for name, value in content.items() if value is not None}
    for name in ("table", "root"):
        if place := getattr(section, name, None):
            return "local", {"uri": str(place)}
    function = getattr(section, "function", None)
    # embedded data, and those of a user's function, are made by code
    return "code", {"tags": {"mlflow.source.name": function or f"palimpsest {section.name}"}}
