from .catalogue import (
    CATALOGUE,
    INTERPOLATED,
    describe,
    is_headline,
    split_name,
)
from .channels import (
    N_CLUSTERS,
    cluster_channels,
    leading_directions,
    match_clusters,
)
from .collapse import (
    describe_features,
    is_collapsed,
    name_collapse,
)
from .controls import (
    Controls,
    Degraded,
    degrade,
)
from .drift import (
    representation_drift,
    weight_distance,
)
from .entries import (
    SCORINGS,
    STAGES,
    name_auroc,
)
from .label_scores import (
    score_labels,
)
from .metric import (
    At,
    Form,
    Kind,
    Metric,
)
from .probes.kinds import (
    PROBE_KINDS,
    ProbeKind,
)
from .probes.linear import (
    fit_linear_layers,
)
from .probes.probed_task import (
    ProbedTask,
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
)
from .rows import (
    measure_brain,
    name_probes,
)
from .sequences import (
    name_sequence,
)
from .significance import (
    correct_over_rois,
    mean_over_subjects,
)
from .verdict import (
    VerdictKind,
    name_evidence,
)
from .verdict_rows import (
    VERDICTS,
    Verdict,
    name_verdict,
    read_verdict,
    tag_verdicts,
)

__all__ = [
    "CATALOGUE",
    "INTERPOLATED",
    "N_CLUSTERS",
    "N_COLOURS",
    "PROBE_KINDS",
    "SCORINGS",
    "STAGES",
    "VERDICTS",
    "At",
    "Controls",
    "Degraded",
    "Form",
    "Kind",
    "Metric",
    "ProbeKind",
    "ProbedTask",
    "Projection",
    "Reader",
    "Verdict",
    "VerdictKind",
    "cluster_channels",
    "correct_over_rois",
    "degrade",
    "describe",
    "describe_features",
    "expected_depth",
    "fit_linear_layers",
    "is_collapsed",
    "is_headline",
    "leading_directions",
    "match_clusters",
    "mean_over_subjects",
    "measure_brain",
    "name_auroc",
    "name_collapse",
    "name_evidence",
    "name_probes",
    "name_sequence",
    "name_verdict",
    "open_reader",
    "probe_features",
    "project_tokens",
    "read_verdict",
    "representation_drift",
    "rewiring_measures",
    "score_labels",
    "split_name",
    "tag_verdicts",
    "weight_distance",
]
