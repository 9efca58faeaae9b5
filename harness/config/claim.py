"""The plan of a preregistered test of "brain-like networks forget less": what is run, and how it is judged.

The plan's hash stands in the manifest of every run from before the run starts (`harness.runs.bind_to_plan`),
and `harness.claim` reads runs of that plan only.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from harness.config.base import (
    Name,
    Section,
    Seed,
)
from harness.config.compose import flatten
from harness.config.run import Config
from harness.config.task import tasks_in_order
from harness.storage import (
    InputError,
    content_hash,
    refuse_endless,
    unknown_name,
)


class ClaimPlan(Section):
    """A test's plan: a family of backbones, what each is fine-tuned on, and how the runs are judged."""

    study: Name = Field(description="study.name of the runs")
    backbones: dict[Name, Name] = Field(
        min_length=4, description="backbone → size class; H is permuted within classes"
    )
    tasks: list[Name] = Field(min_length=1, description="tasks, each fine-tuned on by every backbone")
    method: Name = Field("full", description="fine-tuning method")
    seeds: list[Seed] = Field([0], min_length=1, description="seeds of the runs")
    probes: list[Name] = Field(min_length=1, description="probe tasks that forgetting is averaged over")
    level: float = Field(
        0.75, gt=0, lt=1, description="a: share of the way to what all backbones learn at which F(a) is read"
    )
    score: Literal["alignment/all/slope", "alignment/all/hierarchy"] = Field(
        "alignment/all/slope", description="H, how brain-like a backbone is: mean over the fits of step 0"
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="level of the test")
    permutations: int = Field(
        10_000, ge=10_000, description="number of permutations, where not all of them are computed"
    )
    seed: Seed = Field(0, description="of the permutations")
    settings: dict[str, Any] = Field(
        {}, description="further settings that every run must have: finetune.lr, mapping.family, …"
    )

    @model_validator(mode="after")
    def _each_name_once(self) -> ClaimPlan:
        for setting in ("tasks", "seeds", "probes"):
            values = getattr(self, setting)
            if len(set(values)) < len(values):
                raise ValueError(f"found {setting} {values}, expected each once")
        shared = sorted(set(self.tasks) & set(self.probes))
        if shared:
            raise ValueError(f"found {', '.join(shared)} in tasks and in probes, expected different names")
        return self

    @property
    def hash(self) -> str:
        """SHA-256 of the content: comments, order of keys and layout of the file do not change it."""
        return content_hash(self.model_dump(mode="json"))

    def check(self, config: Config) -> None:
        """Check that a run belongs to the plan.

        Raises
        ------
        InputError
            Names the first setting of the run that the plan does not have.
        """
        tasks = [task.name for task in tasks_in_order(config.task)]
        if len(tasks) > 1:
            raise InputError(f"task: found the sequence {', '.join(tasks)}, expected one task of the plan")
        size = self.backbones.get(config.backbone.name)
        for setting, found, planned in (
            ("study.name", config.study.name, [self.study]),
            ("backbone", config.backbone.name, self.backbones),
            ("task", tasks[0], self.tasks),
            ("method", config.method.name, [self.method]),
            ("seed", str(config.seed), [str(seed) for seed in self.seeds]),
        ):
            if found not in planned:
                raise InputError(f"{setting} of the plan: {unknown_name('value', found, planned)}")
        if config.backbone.size not in (None, size):
            raise InputError(
                f"backbone.size: found {config.backbone.size}, expected {size} as in the plan's backbones"
            )
        for probe in self.probes:
            if probe not in config.probes.names:
                raise InputError(f"probes.tasks: found no {probe}, expected all probes of the plan")
        found_settings = flatten(config)
        for setting, value in self.settings.items():
            if setting not in found_settings:
                raise unknown_name("setting in the plan's settings", setting, found_settings)
            text = value if isinstance(value, str) else json.dumps(value)
            if found_settings[setting] != text:
                raise InputError(f"{setting}: found {found_settings[setting]}, expected {text} as planned")


def read_plan(path: Path) -> ClaimPlan:
    """Read a plan from a YAML file.

    Raises
    ------
    InputError
        If the file is missing or not valid YAML, a key is unknown or missing, or a value is out of range.
    """
    path = Path(path)
    refuse_endless(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: found {json.dumps(content, default=str)}, expected settings of a plan")
    try:
        # through JSON, where pydantic's strict mode takes neither "3" for 3 nor true for 1
        return ClaimPlan.model_validate_json(json.dumps(content, default=str))
    except ValidationError as failure:
        raise InputError(f"{path}: {_first_error(failure)}") from None


def _first_error(failure: ValidationError) -> str:
    errors = failure.errors(include_url=False)
    # a mistyped name also makes one missing; the typo says more
    error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    setting = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        return str(unknown_name("setting", setting, ClaimPlan.model_fields))
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "missing":
        return f"{setting}: found nothing, expected {ClaimPlan.model_fields[setting].description}"
    expected = re.sub("^(List|Dictionary) should have", "a collection with", error["msg"])
    expected = re.sub("^String should (have|match)", "a string with", expected)
    return (
        f"{setting}: found {json.dumps(error['input'])}, expected {expected.removeprefix('Input should be ')}"
    )
