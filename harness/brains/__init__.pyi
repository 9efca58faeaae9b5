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
    in_bytes,
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
    "in_bytes",
    "load_brain",
    "load_truth",
    "save_truth",
]
