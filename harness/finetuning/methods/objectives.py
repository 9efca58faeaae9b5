"""The objective of every method."""

from __future__ import annotations

from accelerate import Accelerator

from harness.backbones import Backbone
from harness.config import (
    Config,
    EwcConfig,
    FlypConfig,
    L2SpConfig,
    L2SpLdifsConfig,
    LdifsConfig,
    LwfConfig,
)
from harness.finetuning.methods.ewc import Ewc
from harness.finetuning.methods.l2_sp import L2Sp
from harness.finetuning.methods.ldifs import Ldifs
from harness.finetuning.methods.lwf import Lwf
from harness.finetuning.methods.objective import Objective
from harness.finetuning.methods.tuned import TunedModel
from harness.storage import InputError
from tasks import (
    Task,
    load_task,
)


def build_objective(
    config: Config, model: TunedModel, task: Task, backbone: Backbone, accelerator: Accelerator
) -> Objective:
    """What the method minimises.

    Parameters
    ----------
    config : Config
    model : TunedModel
    task : Task
        The one that is fine-tuned on.
    backbone : Backbone
        As pretrained.
    accelerator : Accelerator
        Says where teachers and starting points shall be.

    Raises
    ------
    InputError
        For settings that do not go together, layers that are not there, or a proxy that cannot be loaded.
    """
    method, device = config.method, accelerator.device
    if isinstance(method, L2SpConfig | L2SpLdifsConfig):
        return L2Sp(model, task, backbone, method, device)
    if isinstance(method, LdifsConfig):
        return Ldifs(model, task, backbone, method, device)
    if isinstance(method, EwcConfig | LwfConfig):
        proxy = load_task(method.proxy, method.n_proxy, 1, config.seed)
        if isinstance(method, LwfConfig):
            return Lwf(model, task, backbone, method, proxy, device)
        return Ewc(model, task, backbone, method, proxy, device, config.seed)
    if isinstance(method, FlypConfig):
        if config.finetune.accumulation > 1:
            raise InputError(
                f"finetune.accumulation: found {config.finetune.accumulation}, accepted with method flyp: 1, "
                "as images are contrasted with the others of their batch"
            )
        # open_clip takes seconds to import
        from harness.finetuning.methods.flyp import Flyp

        return Flyp(model, task, accelerator.process_index, accelerator.num_processes)
    return Objective(model, task)
