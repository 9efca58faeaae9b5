from .brain_maps import (
    draw_brain,
)
from .cluster_maps import (
    draw_cluster_maps,
    draw_clusters,
    label_voxels,
)
from .layer_maps import (
    DepthShift,
    choose_limit,
    draw_layer_maps,
    measure_shift,
)
from .projections import (
    MOST_IMAGES,
    RoiReading,
    draw_layers,
    draw_readout,
)
from .style import (
    FAINT,
    INK,
    WIDTH,
    choose_colours,
    draw_steps,
    draw_task_steps,
    embed_png,
    embed_svg,
    figure_style,
    save_png,
)

__all__ = [
    "FAINT",
    "INK",
    "MOST_IMAGES",
    "WIDTH",
    "DepthShift",
    "RoiReading",
    "choose_colours",
    "choose_limit",
    "draw_brain",
    "draw_cluster_maps",
    "draw_clusters",
    "draw_layer_maps",
    "draw_layers",
    "draw_readout",
    "draw_steps",
    "draw_task_steps",
    "embed_png",
    "embed_svg",
    "figure_style",
    "label_voxels",
    "measure_shift",
    "save_png",
]
