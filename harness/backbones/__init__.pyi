from .backbone import (
    Backbone,
    Preprocessing,
    TextEncoder,
    TextTower,
    encoder_hash,
)
from .checkpoint_place import (
    locate_checkpoint,
)
from .clip_backbone import (
    without_remark_on_random_weights,
)
from .load import (
    load_backbone,
    load_open_clip,
)
from .mini import (
    MEAN,
    MODEL_NAME,
    STD,
    WIDTHS,
    name_mini,
)
from .mini_clip import (
    CLIP_NAME,
    build_tokenizer,
    register_clip_config,
    tokenize,
)
from .origin import (
    Origin,
    describe_origin,
)
from .pretrained_head import (
    PretrainedHead,
    load_pretrained_head,
)

__all__ = [
    "CLIP_NAME",
    "MEAN",
    "MODEL_NAME",
    "STD",
    "WIDTHS",
    "Backbone",
    "Origin",
    "Preprocessing",
    "PretrainedHead",
    "TextEncoder",
    "TextTower",
    "build_tokenizer",
    "describe_origin",
    "encoder_hash",
    "load_backbone",
    "load_open_clip",
    "load_pretrained_head",
    "locate_checkpoint",
    "name_mini",
    "register_clip_config",
    "tokenize",
    "without_remark_on_random_weights",
]
