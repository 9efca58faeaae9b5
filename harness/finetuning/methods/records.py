"""One record per fine-tuning method: everything that differs between methods, and where to find it."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from harness.config import Config
from harness.config import brain as settings_of_brains
from harness.config import method as settings
from harness.mappings import FAMILIES
from harness.storage import InputError

_HERE = "harness.finetuning.methods"


@dataclass(frozen=True)
class Method:
    """A fine-tuning method.

    Functions are references, ``module:function``, imported on first use: peft and open_clip take seconds to
    import.

    Attributes
    ----------
    config : type of its settings
        Names the method. Methods that train all weights extend `AllWeightsConfig`.
    opens : str
        Function that opens a backbone to training: takes `Opening`, returns `Added`.
    objective : str
        Function that builds what is minimised: takes the model, the task and `Context`, returns `Objective`.
    stages : str
        Function that plans a task's stages: takes the settings, ``finetune.lr`` and the number of steps,
        returns a list of `TrainingStage`.
    fingerprints : str or None
        Function of the settings that returns fingerprints of the method's own inputs, for the manifest.
    teacher : bool
        Whether the objective runs a copy of the pretrained backbone on every image.
    copies_of_trained : int
        Numbers that the objective keeps per trained parameter: 1 for the starting point, 2 with Fisher
        information.
    needs_texts : bool
        Whether the backbone's text tower is trained on the class names and the head is built from it.
    accumulates : bool
        Whether a step's batch may be processed in parts (``finetune.accumulation``).
    replays : bool
        Whether images of earlier tasks are trained on, and their heads with them; it needs a sequence.
    anchors : bool
        Whether the objective reads the brain's mapping of step 0 (`StartMappings`), which is then fitted
        before the first step.
    """

    config: type[settings.MethodConfig]
    opens: str = f"{_HERE}.opening:open_all_weights"
    objective: str = f"{_HERE}.objective:build"
    stages: str = f"{_HERE}.stages:one_stage"
    fingerprints: str | None = None
    teacher: bool = False
    copies_of_trained: int = 0
    needs_texts: bool = False
    accumulates: bool = True
    replays: bool = False
    anchors: bool = False

    @property
    def name(self) -> str:
        """Name in ``method.name``."""
        return str(self.config.model_fields["name"].default)

    def load(self, what: str) -> Callable[..., Any]:
        """Import one of its functions: ``opens``, ``objective``, ``stages`` or ``fingerprints``."""
        found: Callable[..., Any] = pkgutil.resolve_name(getattr(self, what))
        return found


_RECORDS = (
    Method(settings.FullConfig),
    Method(settings.LinearProbeConfig, opens=f"{_HERE}.opening:open_nothing"),
    Method(settings.LpFtConfig, stages=f"{_HERE}.lp_ft:plan_stages"),
    Method(settings.LoraConfig, opens=f"{_HERE}.lora:open_adapters"),
    Method(settings.BitFitConfig, opens=f"{_HERE}.bitfit:open_biases"),
    Method(settings.L2SpConfig, objective=f"{_HERE}.l2_sp:build", copies_of_trained=1),
    Method(settings.L2SpLdifsConfig, objective=f"{_HERE}.l2_sp:build", copies_of_trained=1),
    Method(settings.LdifsConfig, objective=f"{_HERE}.ldifs:build", teacher=True),
    Method(settings.EwcConfig, objective=f"{_HERE}.ewc:build", copies_of_trained=2),
    Method(settings.LwfConfig, objective=f"{_HERE}.lwf:build", teacher=True),
    Method(settings.ReplayConfig, objective=f"{_HERE}.replay:build", replays=True),
    Method(
        settings.BrainAnchorConfig,
        objective=f"{_HERE}.brain_anchor:build",
        fingerprints=f"{_HERE}.anchor_images:fingerprint",
        anchors=True,
    ),
    Method(
        settings.FlypConfig,
        opens=f"{_HERE}.flyp:open_both_towers",
        objective=f"{_HERE}.flyp:build",
        needs_texts=True,
        accumulates=False,
    ),
    Method(
        settings.PythonMethodConfig,
        objective=f"{_HERE}.python:build",
        fingerprints=f"{_HERE}.python:fingerprint",
    ),
)

METHODS = {method.name: method for method in _RECORDS}
"""Every method by its name."""

if {method.config for method in _RECORDS} != set(get_args(settings.MethodConfig)):
    raise TypeError("every member of MethodConfig needs one record in harness.finetuning.methods.records")


def check_tasks(method: settings.MethodConfig, tasks: Sequence[str]) -> None:
    """Raise an `InputError` if a method cannot be used on these tasks, by name."""
    if METHODS[method.name].replays and len(tasks) < 2:
        raise InputError(
            f"method: found {method.name} with the single task {tasks[0]}, which leaves nothing to replay; "
            "expected a sequence, such as task=[digits,textures] or task.classes_per_stage=2"
        )


def check_anchor(config: Config) -> None:
    """Raise an `InputError` if a method that anchors at the brain lacks a fit mapping or images."""
    method = config.method
    if not METHODS[method.name].anchors:
        return
    if not FAMILIES[config.mapping.family].freezes:
        fit = " or ".join(name for name, family in FAMILIES.items() if family.freezes)
        raise InputError(
            f"mapping.family: found {config.mapping.family} with method {method.name}, which needs a mapping "
            f"of step 0 alone that predicts from selectors; expected {fit}"
        )
    brain = config.brain
    of_scenes = isinstance(brain, settings_of_brains.SimulatedConfig) and brain.stimuli is None
    if getattr(method, "images", None) is None and not of_scenes:
        raise InputError(
            f"method.images: found null with method {method.name} and a brain that has seen other images "
            "than the shapes world's; expected a folder of images like its stimuli"
        )


def fingerprint_method(method: settings.MethodConfig) -> dict[str, str]:
    """Fingerprint a method's own inputs, such as a user's function, for a run's manifest."""
    record = METHODS[method.name]
    if record.fingerprints is None:
        return {}
    found: dict[str, str] = record.load("fingerprints")(method)
    return found
