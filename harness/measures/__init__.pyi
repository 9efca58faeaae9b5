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
from .claim import (
    RIVALS,
    Claim,
    ClaimRun,
    judge_claim,
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
from .matched_learning import (
    LEARNED_SHARES,
    accuracy_to_reach,
    common_best,
    value_at_accuracy,
    values_at_shares,
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
from .rank_tests import (
    RankTest,
    detectable_rho,
    power_of_rank_test,
    rank_test,
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

__all__ = [
    "CATALOGUE",
    "INTERPOLATED",
    "LEARNED_SHARES",
    "N_CLUSTERS",
    "N_COLOURS",
    "PROBE_KINDS",
    "RIVALS",
    "SCORINGS",
    "STAGES",
    "At",
    "Claim",
    "ClaimRun",
    "Form",
    "Kind",
    "Metric",
    "ProbeKind",
    "ProbedTask",
    "Projection",
    "RankTest",
    "Reader",
    "accuracy_to_reach",
    "cluster_channels",
    "common_best",
    "correct_over_rois",
    "describe",
    "detectable_rho",
    "expected_depth",
    "fit_linear_layers",
    "is_headline",
    "judge_claim",
    "leading_directions",
    "match_clusters",
    "mean_over_subjects",
    "measure_brain",
    "name_auroc",
    "name_probes",
    "name_sequence",
    "open_reader",
    "power_of_rank_test",
    "probe_features",
    "project_tokens",
    "rank_test",
    "representation_drift",
    "rewiring_measures",
    "score_labels",
    "split_name",
    "value_at_accuracy",
    "values_at_shares",
    "weight_distance",
]
