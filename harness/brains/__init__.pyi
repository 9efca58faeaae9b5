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
    locate_voxels,
)
from .places import (
    FS_LR,
    FSAVERAGE,
    Mesh,
    Places,
    Volume,
)
from .simulated.truth import (
    save_truth,
)

__all__ = [
    "AREA_GROUPS",
    "FSAVERAGE",
    "FS_LR",
    "HEMISPHERES",
    "Brain",
    "Mesh",
    "Places",
    "Roi",
    "Surface",
    "Volume",
    "describe_brain",
    "group_areas",
    "load_brain",
    "load_truth",
    "locate_voxels",
    "save_truth",
]
