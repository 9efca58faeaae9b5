"""What can be set: every section of the configuration with its defaults, units and ranges.

`harness.config` composes and checks them. A file in ``configs/`` states what makes an option what it is;
everything else comes from here.
"""

from __future__ import annotations

from harness.sections.backbone import BackboneConfig, PreprocessingConfig
from harness.sections.base import Name, Section, Seed
from harness.sections.brain import (
    Algonauts2023Config,
    ArraysConfig,
    BrainConfig,
    GrayordinatesConfig,
    NsdConfig,
    SimulatedConfig,
    one_by_one,
)
from harness.sections.mapping import (
    AttentionConfig,
    FactorTopyConfig,
    FreeSelectorsConfig,
    LayerRidgeConfig,
    MappingConfig,
    TokenPlace,
    TokenPrecision,
    TrainedMappingConfig,
)
from harness.sections.method import (
    AllWeightsConfig,
    BitFitConfig,
    EwcConfig,
    FlypConfig,
    FullConfig,
    L2SpConfig,
    L2SpLdifsConfig,
    LdifsConfig,
    LinearProbeConfig,
    LoraConfig,
    LpFtConfig,
    LwfConfig,
    MethodConfig,
)
from harness.sections.run import Config, FinetuneConfig, SnapshotsConfig
from harness.sections.task import (
    EmbeddedTaskConfig,
    HubTaskConfig,
    ImagefolderTaskConfig,
    LabelConfig,
    MedmnistTaskConfig,
    OutsideTaskConfig,
    SequenceConfig,
    TableTaskConfig,
    TaskConfig,
    main_measure,
    tasks_in_order,
)

__all__ = [
    "Algonauts2023Config",
    "AllWeightsConfig",
    "ArraysConfig",
    "AttentionConfig",
    "BackboneConfig",
    "BitFitConfig",
    "BrainConfig",
    "Config",
    "EmbeddedTaskConfig",
    "EwcConfig",
    "FactorTopyConfig",
    "FinetuneConfig",
    "FlypConfig",
    "FreeSelectorsConfig",
    "FullConfig",
    "GrayordinatesConfig",
    "HubTaskConfig",
    "ImagefolderTaskConfig",
    "L2SpConfig",
    "L2SpLdifsConfig",
    "LabelConfig",
    "LayerRidgeConfig",
    "LdifsConfig",
    "LinearProbeConfig",
    "LoraConfig",
    "LpFtConfig",
    "LwfConfig",
    "MappingConfig",
    "MedmnistTaskConfig",
    "MethodConfig",
    "Name",
    "NsdConfig",
    "OutsideTaskConfig",
    "PreprocessingConfig",
    "Section",
    "Seed",
    "SequenceConfig",
    "SimulatedConfig",
    "SnapshotsConfig",
    "TableTaskConfig",
    "TaskConfig",
    "TokenPlace",
    "TokenPrecision",
    "TrainedMappingConfig",
    "main_measure",
    "one_by_one",
    "tasks_in_order",
]
