from .atlas_maps import (
    draw_places,
    draw_selector_maps,
    draw_share_maps,
)
from .brain_maps import (
    draw_brain,
    region_colours,
)
from .channel_grid import (
    ChannelColumn,
    count_pictures,
    draw_channel_grid,
)
from .cluster_maps import (
    draw_cluster_maps,
    draw_clusters,
    label_voxels,
)
from .flatmap import (
    shade_layers,
)
from .interface import (
    brain,
    clusters,
    layers,
    shift,
    values,
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
    "ChannelColumn",
    "DepthShift",
    "RoiReading",
    "brain",
    "choose_colours",
    "choose_limit",
    "clusters",
    "count_pictures",
    "draw_brain",
    "draw_channel_grid",
    "draw_cluster_maps",
    "draw_clusters",
    "draw_layer_maps",
    "draw_layers",
    "draw_places",
    "draw_readout",
    "draw_selector_maps",
    "draw_share_maps",
    "draw_steps",
    "draw_task_steps",
    "embed_png",
    "embed_svg",
    "figure_style",
    "label_voxels",
    "layers",
    "measure_shift",
    "region_colours",
    "save_png",
    "shade_layers",
    "shift",
    "values",
]
