"""Compose, check, write, read and compare configurations.

Hydra composes settings from the groups in ``configs/``, the user's own folders (`harness.config.folders`) and
overrides such as ``backbone=mini_random`` (an option of a group) or ``finetune.lr=1e-4`` (a value). Pydantic
checks them. A list of tasks, ``task=[digits,textures]``, is a sequence; its tasks are composed one by one.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from harness.config.backbone import name_by_model
from harness.config.base import leave_later_out
from harness.config.brain import one_by_one
from harness.config.class_stages import split_classes
from harness.config.folders import (
    CONFIGS,
    GROUPS,
    group_options,
    own_folders,
    own_options,
)
from harness.config.option_files import OptionFiles, set_values
from harness.config.overrides import (
    Override,
    parse_override,
    settings,
    unknown_setting,
)
from harness.config.run import Config
from harness.config.task import (
    TaskConfig,
    tasks_in_order,
)
from harness.storage import (
    InputError,
    content_hash,
    refuse_endless,
    unknown_name,
)

MAPPED = ("seed", "backbone", "brain", "mapping")
"""Sections that determine the mapping of a frozen network."""

OF_FUNCTIONS = ("task.function", "task.arguments")


def load_config(overrides: list[str], files: OptionFiles | None = None) -> Config:
    """Compose a configuration from `overrides`, such as ``["backbone=mini_random", "finetune.lr=1e-4"]``.

    Parameters
    ----------
    overrides : list of str
    files : OptionFiles, optional
        To compose from; None: the files as they are now. For many configurations one after the other.

    Raises
    ------
    InputError
        If an override is malformed, an option or a setting does not exist, or a value is out of range.
    """
    files = files or OptionFiles()
    parsed = [parse_override(text) for text in overrides]
    names = _find_sequence(parsed)
    if len(names) < 2:
        config = _validate(_resolve(parsed, files, *names))
        config = config.model_copy(update={"task": split_classes(config.task)})
    else:
        # each is composed as if alone, so overrides of task apply to all
        containers = {name: _resolve(parsed, files, name) for name in names}
        for name, container in containers.items():
            _check_alone(name, container)
        sources = {container["task"]["source"] for container in containers.values()}
        for override in parsed:
            if override.name.startswith(OF_FUNCTIONS) and "python" not in sources:
                raise InputError(f"{override.name}: no task of the sequence is python, expected one")
        tasks = [container["task"] for container in containers.values()]
        config = _validate(containers[names[0]] | {"task": {"source": "sequence", "tasks": tasks}})
        split_classes(config.task)
    files.check_once(config.study.grid, _check_grid)
    return _fill_in_probes(config)


def load_probe(option: str) -> TaskConfig:
    """Compose the settings of an option of ``task`` as they are without overrides."""
    return _load_alone(option) if option in own_options("task") else _load_built_in(option)


@functools.cache
def _load_built_in(option: str) -> TaskConfig:
    """Compose an option of ours once: every run's name asks for its probes, and our files do not change."""
    return _load_alone(option)


def _load_alone(option: str) -> TaskConfig:
    (task,) = tasks_in_order(load_config([f"task={option}", "probes.tasks=[]"]).task)
    return task


def probe_tasks(config: Config) -> tuple[TaskConfig, ...]:
    """Return the settings of a run's probe tasks; the tasks that it is fine-tuned on are not among them."""
    tasks = tasks_in_order(config.task)
    trained = {task.name for task in tasks} | {task.part.of for task in tasks if task.part is not None}
    probes = zip(config.probes.names, config.probes.tasks, strict=True)
    return tuple(
        load_probe(task) if isinstance(task, str) else task for name, task in probes if name not in trained
    )


def _fill_in_probes(config: Config) -> Config:
    """Replace the names of probe tasks that come from the user's folders by the settings."""
    # a probe that is fine-tuned on is skipped later, whatever it is called
    known = {*group_options("task"), *(task.name for task in tasks_in_order(config.task))}
    for name in config.probes.tasks:
        if isinstance(name, str) and name not in known:
            raise InputError(f"probes.tasks: {unknown_name('task', name, group_options('task'))}")
    own = own_options("task")
    if not set(own) & {name for name in config.probes.tasks if isinstance(name, str)}:
        return config
    tasks = [load_probe(task) if task in own else task for task in config.probes.tasks]
    return config.model_copy(update={"probes": config.probes.model_copy(update={"tasks": tasks})})


def load_option(group: str, option: str, settings: Mapping[str, Any]) -> Any:
    """One section of settings: an option of a group, such as ``backbone=mini_clip``, with further settings.

    Parameters
    ----------
    group, option : str
    settings : mapping of a setting's name within the section to its value

    Raises
    ------
    InputError
        If there is no such option or setting, or a value is not valid.
    """
    container = _resolve([parse_override(f"{group}={option}")], OptionFiles())
    given = {
        name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in settings.items()
    }
    return getattr(_validate(container | {group: container[group] | given}), group)


def _find_sequence(overrides: list[Override]) -> list[str]:
    """Return the names in a list of tasks, ``task=[digits,textures]``; empty if there is no list."""
    lists = [override.value for override in overrides if override.name == "task"]
    names = [str(name) for value in lists if isinstance(value, list) for name in value]
    if [] in lists:
        raise InputError("task: found [], expected one or more tasks, such as task=[digits,textures]")
    for name in names:
        if name not in group_options("task"):
            raise unknown_name("task", name, group_options("task"))
        if names.count(name) > 1:
            raise InputError(f"task: found {name} {names.count(name)} times, expected each task once")
    return names


_OF_BROKEN_FILES = (ValueError, TypeError, KeyError, AttributeError, AssertionError, OSError, RecursionError)


def _name_files(values: dict[str, Any]) -> str:
    """Name the user's files of the chosen options, else all folders of configurations."""
    files = [
        folder / name / f"{value}.yaml"
        for name, value in values.items()
        for folder in own_folders()
        if name in GROUPS
    ]
    return " and ".join(map(str, [file for file in files if file.exists()] or [CONFIGS, *own_folders()]))


def _resolve(overrides: list[Override], files: OptionFiles, task: str | None = None) -> dict[str, Any]:
    """Resolve options and values; `task` replaces a list of tasks among the overrides."""
    values = {each.name: each.value for each in overrides}
    if task is not None:
        values["task"] = task
    chosen = {name: str(value) for name, value in values.items() if name in GROUPS}
    try:
        composed = files.compose(chosen)
        # in a sequence, a function is the one of the tasks that come from a function
        elsewhere = task is not None and composed["task"]["source"] != "python"
        given = {
            name: value
            for name, value in values.items()
            if name not in GROUPS and not (elsewhere and name.startswith(OF_FUNCTIONS))
        }
        container = set_values(composed, given)
    except InputError:
        raise
    # Hydra stops at some broken files with Python's own errors
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, *_OF_BROKEN_FILES) as error:
        found = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"configuration in {_name_files(values)}: {found}") from None
    backbone: Any = container.get("backbone")
    model = backbone.get("model") if isinstance(backbone, dict) else None
    # by default the model's name; whether there is such a model is the library's to say
    if isinstance(model, str) and backbone.get("name") == model and "backbone.name" not in values:
        backbone["name"] = name_by_model(model)
    return container


def _check_alone(name: str, container: dict[str, Any]) -> None:
    """Check a task of a sequence as if it were the only one, so that errors name its settings."""
    try:
        _validate(container)
    except InputError as error:
        if "task." not in str(error):
            raise
        raise InputError(
            f"{error} (task {name} of a sequence: task.… overrides apply to all its tasks; "
            "a file in a task folder sets one)"
        ) from None


def read_config(path: Path) -> Config:
    """Read what `to_yaml` wrote; an `InputError` names a missing or broken file, and the setting."""
    refuse_endless(path)
    try:
        return _validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    # also text in another encoding, and lists that contain themselves
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None


def to_yaml(config: Config) -> str:
    """Write every setting as `read_config` reads it."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def determining(config: Config) -> dict[str, Any]:
    """Return the settings that determine a run's results, nested; not those of storage or speed.

    A list of one subject equals that subject.
    """
    return _alone(config).model_dump(
        mode="json",
        exclude={
            "runs_dir": True,
            "study": True,
            "mlflow": True,
            "reuse": True,
            "finetune": {"num_workers"},
            "snapshots": {"resume_every"},
            "mapping": {"voxels_per_pass", "token_place"},
            "task": {"allow_outside_root": True, "tasks": {"__all__": {"allow_outside_root"}}},
            "brain": {"allow_outside_root"},
            "probes": {"tasks": {"__all__": {"allow_outside_root"}}},
        },
    )


def _alone(config: Config) -> Config:
    brains = one_by_one(config.brain)
    return config.model_copy(update={"brain": brains[0]}) if len(brains) == 1 else config


def config_hash(config: Config) -> str:
    """Hash the settings that determine the results, by SHA-256."""
    return content_hash(_hashed(config))


def map_hash(config: Config) -> str:
    """Hash the settings that determine the mapping of a frozen network, by SHA-256."""
    content = _hashed(config)
    return content_hash({name: content[name] for name in MAPPED})


def _hashed(config: Config) -> dict[str, Any]:
    content = leave_later_out(_alone(config), determining(config))
    if not _measures_shifts(config):
        del content["shifts"]
    if content["brain"]["subjects"] is None:
        del content["brain"][
            "subjects"
        ]  # runs of one subject keep the names they had before runs of several existed
    return content


def _measures_shifts(config: Config) -> bool:
    """Whether `Config.shifts` has an effect."""
    tasks = [*tasks_in_order(config.task), *probe_tasks(config)]
    return bool(config.probes.shifts) or any(task.shifts or getattr(task, "variants", ()) for task in tasks)


def flatten(config: Config) -> dict[str, str]:
    """Return the settings that determine the results: dotted name → value as an override gives it."""

    def leaves(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from leaves(f"{prefix}.{key}" if prefix else key, inner)
        else:
            yield prefix, value if isinstance(value, str) else json.dumps(value)

    content = determining(config)
    if "tasks" in content["task"]:
        # by name instead of one long list
        content["task"]["tasks"] = {task["name"]: task for task in content["task"]["tasks"]}
    return dict(leaves("", content))


def _validate(container: Any) -> Config:
    """Check nested settings; an `InputError` names the first wrong one."""
    try:
        # through JSON, where pydantic's strict mode takes lists but neither "3" for 3 nor true for 1
        # YAML also has dates, which JSON has not
        return Config.model_validate_json(json.dumps(container, default=str))
    except ValidationError as failure:
        errors = failure.errors(include_url=False)
        # a mistyped name also makes one missing; the typo says more
        error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    known = settings()
    names: list[str] = []
    for part in error["loc"][:-1]:
        # pydantic also names the chosen option (method.lora.rank), which is not a setting
        names += [str(part)] if ".".join([*names, str(part)]) in known else []
    last = [*map(str, error["loc"][-1:])]
    if ".".join([*names, *last]) not in known and ".".join([*names[:-1], *last]) in known:
        names.pop()  # an option with a setting of its own name: task.table
    setting = ".".join([*names, *last])
    if error["type"] == "value_error" and setting not in known:
        setting = ".".join(names)  # the error concerns an option as a whole
    if error["type"] == "extra_forbidden":
        raise unknown_setting(setting)
    if error["type"] == "value_error":
        raise InputError(f"{setting}: {error['ctx']['error']}")
    found = "nothing" if error["type"] == "missing" else json.dumps(error["input"], default=str)
    expected = error["msg"].removeprefix("Input should be ")
    if error["type"] == "missing":
        expected = _describe(error["loc"]) or "a value"
    expected = re.sub("^String should (have|match)", "a string with", expected)
    expected = re.sub("^(List|Tuple) should have", "a list with", expected)
    if error["type"] in ("model_type", "model_attributes_type"):
        expected = "a section of settings"
    elif error["type"].startswith("union_tag"):
        tag = error["ctx"]["discriminator"].strip("'")
        setting, found = f"{setting}.{tag}", json.dumps(error["ctx"].get("tag"))
        expected = error["ctx"].get("expected_tags", "the name of an option")
    raise InputError(f"{setting}: found {found}, expected {expected}")


def _describe(place: tuple[int | str, ...]) -> str | None:
    """Return the description of the setting at the place of a validation error; places also name options."""
    options: list[Any] = [Config]
    description = None
    for part in place:
        options = [option for option in options if hasattr(option, "model_fields")]  # tuples have none
        fields = [option.model_fields[part] for option in options if part in option.model_fields]
        if fields:
            annotation = fields[0].annotation
            description, options = fields[0].description, [*(get_args(annotation) or (annotation,))]
        else:
            tags = [
                [tag for field in option.model_fields.values() for tag in get_args(field.annotation)]
                for option in options
            ]
            options = [option for option, known in zip(options, tags, strict=True) if part in known]
    return description


def _check_grid(grid: dict[str, list[Any]]) -> None:
    for axis, values in grid.items():
        _check_grid_axis(axis, values)


def _check_grid_axis(axis: str, values: list[Any]) -> None:
    _check_varied(axis)
    if not values:
        raise InputError(f"study.grid.{axis}: found [], expected one value or more")
    for value in values:
        together = value if isinstance(value, dict) else {axis: value}
        if axis not in together:
            raise InputError(
                f"study.grid.{axis}: found {json.dumps(value)}, expected settings with {axis} among them"
            )
        for name, chosen in together.items():
            _check_varied(name)
            # a list of tasks is a sequence, and one value of the axis
            for option in chosen if name == "task" and isinstance(chosen, list) else [chosen]:
                if name in GROUPS and option not in group_options(name):
                    raise unknown_name(name, str(option), group_options(name))


def _check_varied(name: str) -> None:
    """Raise an `InputError` unless a setting exists and determines results."""
    if name.partition(".")[0] in ("study", "runs_dir"):
        raise InputError(f"study.grid: found {name}, expected a setting that determines a run's results")
    section, arguments, _ = name.partition(".arguments.")
    # arguments of a user's function may have any name
    if (f"{section}.arguments" if arguments else name) not in settings():
        raise InputError(f"study.grid: {unknown_setting(name)}")
