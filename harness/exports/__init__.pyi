from .formats import (
    FORMATS,
    MODEL_FORMATS,
)
from .model_folder import (
    write_model,
)
from .push import (
    check_push,
    push_model,
)
from .write import (
    write_export,
)

__all__ = [
    "FORMATS",
    "MODEL_FORMATS",
    "check_push",
    "push_model",
    "write_export",
    "write_model",
]
