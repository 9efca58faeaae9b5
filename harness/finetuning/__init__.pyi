from .batches import (
    last_steps,
    plan_batches,
    plan_sequence,
)
from .devices import (
    build_accelerator,
    use_all_cores,
)
from .loop import (
    finetune,
)
from .methods.tuned import (
    TunedModel,
    tune,
)
from .pretraining import (
    PretrainConfig,
    pretrain,
)
from .snapshots import (
    read_backbone,
    read_manifest,
    read_snapshot,
    sequence_steps,
    write_snapshot,
)

__all__ = [
    "PretrainConfig",
    "TunedModel",
    "build_accelerator",
    "finetune",
    "last_steps",
    "plan_batches",
    "plan_sequence",
    "pretrain",
    "read_backbone",
    "read_manifest",
    "read_snapshot",
    "sequence_steps",
    "tune",
    "use_all_cores",
    "write_snapshot",
]
