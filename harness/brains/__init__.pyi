from .area_groups import (
    AREA_GROUPS,
    group_areas,
)
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
    "AREA_GROUPS",
    "HEMISPHERES",
    "Brain",
    "Roi",
    "Surface",
    "describe_brain",
    "group_areas",
    "load_brain",
    "load_truth",
    "save_truth",
]
