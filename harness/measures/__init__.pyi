from .channels import (
    N_CLUSTERS,
    cluster_channels,
    leading_directions,
    match_clusters,
)
from .drift import (
    representation_drift,
    weight_distance,
)
from .label_scores import (
    score_labels,
)
from .probes import (
    fit_linear_layers,
    probe_features,
)
from .projection import (
    N_COLOURS,
    Projection,
    Reader,
    open_reader,
    project_tokens,
)
from .rewiring import (
    expected_depth,
    rewiring_measures,
    tail,
)
from .rows import (
    measure_brain,
    name_probes,
)
from .sequences import (
    name_measure,
    name_sequence,
)
from .significance import (
    correct_over_rois,
    mean_over_subjects,
)

__all__ = [
    "N_CLUSTERS",
    "N_COLOURS",
    "Projection",
    "Reader",
    "cluster_channels",
    "correct_over_rois",
    "expected_depth",
    "fit_linear_layers",
    "leading_directions",
    "match_clusters",
    "mean_over_subjects",
    "measure_brain",
    "name_measure",
    "name_probes",
    "name_sequence",
    "open_reader",
    "probe_features",
    "project_tokens",
    "representation_drift",
    "rewiring_measures",
    "score_labels",
    "tail",
    "weight_distance",
]
