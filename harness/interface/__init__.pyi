from .comparison import (
    Comparison,
    compare,
)
from .fitting import (
    fit,
)
from .loading import (
    load_backbone,
    load_brain,
    load_task,
)
from .task import (
    Task,
)
from .version import (
    __version__,
)

__all__ = [
    "Comparison",
    "Task",
    "__version__",
    "compare",
    "fit",
    "load_backbone",
    "load_brain",
    "load_task",
]
