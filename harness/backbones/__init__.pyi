from .backbone import (
    Backbone,
    Preprocessing,
    TextEncoder,
    TextTower,
    encoder_hash,
)
from .clip_backbone import (
    without_remark_on_random_weights,
)
from .load import (
    load_backbone,
    locate_checkpoint,
)
from .mini import (
    MEAN,
    MODEL_NAME,
    STD,
    WIDTHS,
    name_mini,
)
from .mini_clip import (
    build_tokenizer,
    register_clip_config,
    tokenize,
)

__all__ = [
    "MEAN",
    "MODEL_NAME",
    "STD",
    "WIDTHS",
    "Backbone",
    "Preprocessing",
    "TextEncoder",
    "TextTower",
    "build_tokenizer",
    "encoder_hash",
    "load_backbone",
    "locate_checkpoint",
    "name_mini",
    "register_clip_config",
    "tokenize",
    "without_remark_on_random_weights",
]
