from .batch_plans import (
    check_division,
    last_steps,
    plan_batches,
    plan_sequence,
)
from .devices import (
    build_accelerator,
)
from .launched import (
    count_given_cores,
    use_given_cores,
)
from .loop import (
    finetune,
)
from .methods.objective import (
    Anchor,
    Objective,
    StartMappings,
)
from .methods.records import (
    METHODS,
    check_anchor,
    check_tasks,
    fingerprint_method,
)
from .methods.tuned import (
    TunedModel,
    tune,
)
from .pretraining import (
    PretrainConfig,
    pretrain,
)
from .reuse import (
    adopt_training,
    record_training,
)
from .sizes import (
    count_opened,
)
from .snapshot_steps import (
    sequence_steps,
)
from .snapshots import (
    read_backbone,
    read_manifest,
    read_snapshot,
    read_tuned,
    write_snapshot,
)

__all__ = [
    "METHODS",
    "Anchor",
    "Objective",
    "PretrainConfig",
    "StartMappings",
    "TunedModel",
    "adopt_training",
    "build_accelerator",
    "check_anchor",
    "check_division",
    "check_tasks",
    "count_given_cores",
    "count_opened",
    "finetune",
    "fingerprint_method",
    "last_steps",
    "plan_batches",
    "plan_sequence",
    "pretrain",
    "read_backbone",
    "read_manifest",
    "read_snapshot",
    "read_tuned",
    "record_training",
    "sequence_steps",
    "tune",
    "use_given_cores",
    "write_snapshot",
]
