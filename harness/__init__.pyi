from . import plot
from .backbones import (
    Backbone,
)
from .brains import (
    Brain,
)
from .interface import (
    Comparison,
    Task,
    __version__,
    compare,
    fit,
    load_backbone,
    load_brain,
    load_task,
)
from .mappings import (
    Mapping,
    load_mapping,
    save_mapping,
)
from .query import (
    query,
)
from .storage import (
    InputError,
)

__all__ = [
    "Backbone",
    "Brain",
    "Comparison",
    "InputError",
    "Mapping",
    "Task",
    "__version__",
    "compare",
    "fit",
    "load_backbone",
    "load_brain",
    "load_mapping",
    "load_task",
    "plot",
    "query",
    "save_mapping",
]
