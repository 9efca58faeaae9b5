from .brain import (
    Brain,
    Roi,
    Surface,
)
from .cortex import (
    HEMISPHERES,
)
from .description import (
    describe_brain,
)
from .load import (
    load_brain,
    load_truth,
)
from .simulated.truth import (
    save_truth,
)

__all__ = [
    "HEMISPHERES",
    "Brain",
    "Roi",
    "Surface",
    "describe_brain",
    "load_brain",
    "load_truth",
    "save_truth",
]
