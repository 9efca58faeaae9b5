"""Parts of a backbone opened to training: all weights, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.backbones import Backbone
from harness.config import method as settings
from harness.finetuning.methods.class_texts import ClassTexts
from harness.storage import InputError

if TYPE_CHECKING:
    from peft import PeftModel

    from tasks import Task
else:
    # peft and datasets take seconds to import, and few methods have adapters
    PeftModel = Task = Any


@dataclass(frozen=True)
class Opening:
    """What a method's `opens` function is called with.

    Attributes
    ----------
    backbone : Backbone
        A copy to change; no parameter has a gradient yet.
    method : MethodConfig
    seed : int
    tasks : sequence of Task or None
        Tasks to fine-tune on, in order, for methods that need their class names.
    """

    backbone: Backbone
    method: settings.MethodConfig
    seed: int
    tasks: Sequence[Task | None]


@dataclass(frozen=True)
class Added:
    """What a method puts beside or into the backbone.

    Attributes
    ----------
    adapted : PeftModel or None
        The encoder with adapters.
    texts : ClassTexts or None
        Class sentences and a text tower to train. The head is then built from them, not trained.
    """

    adapted: PeftModel | None = None
    texts: ClassTexts | None = None


def open_nothing(opening: Opening) -> Added:
    """Leave the backbone as pretrained."""
    return Added()


def open_all_weights(opening: Opening) -> Added:
    """Open all weights but those of `frozen_blocks`."""
    backbone, method = opening.backbone, opening.method
    assert isinstance(method, settings.AllWeightsConfig)
    backbone.requires_grad_(True)
    n_frozen = method.frozen_blocks
    if n_frozen == 0:
        return Added()
    depths = backbone.depths()
    n_blocks = max(depths.values())
    if n_frozen >= n_blocks:
        raise InputError(
            f"method.frozen_blocks: found {n_frozen}, expected at most {n_blocks - 1}, "
            f"because this backbone has {n_blocks} blocks and at least one must be trained"
        )
    for name, parameter in backbone.encoder.named_parameters():
        parameter.requires_grad_(depths[name] > n_frozen)
    return Added()
