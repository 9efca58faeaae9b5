from .corrupted import (
    corrupt_images,
)
from .load import (
    load_task,
    load_tasks,
)
from .losses import (
    label_loss,
)
from .shapes import (
    COLOURS,
    IMAGE_SIZE,
    OUTLINES,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    caption_scene,
    label_scenes,
    render_scenes,
    sample_scene,
    sample_scenes,
    vocabulary,
    with_article,
)
from .shift import (
    Shift,
    choose_applicable,
)
from .subsets import (
    first_per_class,
    spread_rows,
)
from .task import (
    LabelArray,
    Task,
    build_task,
)

__all__ = [
    "COLOURS",
    "IMAGE_SIZE",
    "OUTLINES",
    "SHAPES",
    "SIZES",
    "TEXTURES",
    "LabelArray",
    "Scene",
    "Shift",
    "Task",
    "build_task",
    "caption_scene",
    "choose_applicable",
    "corrupt_images",
    "first_per_class",
    "label_loss",
    "label_scenes",
    "load_task",
    "load_tasks",
    "render_scenes",
    "sample_scene",
    "sample_scenes",
    "spread_rows",
    "vocabulary",
    "with_article",
]
