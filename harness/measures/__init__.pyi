from .catalogue import (
    CATALOGUE,
    INTERPOLATED,
    LAYER,
    MetricName,
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
from .collapse import (
    describe_features,
    is_collapsed,
    name_collapse,
)
from .controls import (
    LEVELS,
    NOISES,
    Controls,
    Degraded,
    degrade,
)
from .drift import (
    representation_drift,
    weight_distance,
)
from .entries import (
    STAGES,
)
from .geometry import (
    compare_geometry,
    geometry_ceilings,
    measure_dissimilarities,
    name_agreement,
    name_geometry,
    subject_ceilings,
)
from .graft import (
    PREDICTORS,
    Foretold,
    added_drift,
    average_gradients,
    changed_shares,
    curve_area,
    foretell,
    plan_orders,
    repair_share,
)
from .image_bootstrap import (
    Change,
    change_of,
    mean_change_interval,
    mean_delta_interval,
    read_change,
)
from .label_scores import (
    LabelScores,
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
from .network_entries import (
    SCORINGS,
    name_auroc,
)
from .predicted import (
    counted_places,
    predicted_voxels,
)
from .probes.kinds import (
    PROBE_KINDS,
    ProbeKind,
)
from .probes.linear import (
    fit_linear_layers,
)
from .probes.probed_task import (
    Classifier,
    ProbedTask,
    fit_classifiers,
    name_scores,
    probe_features,
    score_probes,
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
    confidence,
    expected_depth,
    rewiring_measures,
)
from .robustness import (
    ModelHits,
    Robustness,
    apply_line,
    effective_robustness,
    enough_models,
    fit_line,
    to_logit,
)
from .rows import (
    MIN_CEILING,
    measure_brain,
    name_probes,
    normalise_r2,
)
from .score_intervals import (
    Score,
    mean_score_interval,
    read_score,
    score_interval,
)
from .sequences import (
    name_sequence,
    score_joint,
)
from .shift_rows import (
    chance_accuracy,
    corruption_error,
    mean_corruption_error,
    name_part,
    name_shifts,
    read_shift_hits,
    relative_drop,
    score_shift,
)
from .sign_flips import (
    flip_signs,
    seed_interval,
)
from .significance import (
    correct_over_rois,
    mean_over_subjects,
)
from .stability import (
    name_stability,
)
from .trade_off import (
    TOLERANCE,
    TradeOff,
    compare_trade_offs,
)
from .verdict import (
    name_evidence,
)
from .verdict_rows import (
    VERDICTS,
    Verdict,
    VerdictKind,
    name_verdict,
    read_verdict,
    tag_verdicts,
)

__all__ = [
    "CATALOGUE",
    "INTERPOLATED",
    "LAYER",
    "LEARNED_SHARES",
    "LEVELS",
    "MIN_CEILING",
    "NOISES",
    "N_CLUSTERS",
    "N_COLOURS",
    "PREDICTORS",
    "PROBE_KINDS",
    "RIVALS",
    "SCORINGS",
    "STAGES",
    "TOLERANCE",
    "VERDICTS",
    "At",
    "Change",
    "Claim",
    "ClaimRun",
    "Classifier",
    "Controls",
    "Degraded",
    "Foretold",
    "Form",
    "Kind",
    "LabelScores",
    "Metric",
    "MetricName",
    "ModelHits",
    "ProbeKind",
    "ProbedTask",
    "Projection",
    "RankTest",
    "Reader",
    "Robustness",
    "Score",
    "TradeOff",
    "Verdict",
    "VerdictKind",
    "accuracy_to_reach",
    "added_drift",
    "apply_line",
    "average_gradients",
    "chance_accuracy",
    "change_of",
    "changed_shares",
    "cluster_channels",
    "common_best",
    "compare_geometry",
    "compare_trade_offs",
    "confidence",
    "correct_over_rois",
    "corruption_error",
    "counted_places",
    "curve_area",
    "degrade",
    "describe",
    "describe_features",
    "detectable_rho",
    "effective_robustness",
    "enough_models",
    "expected_depth",
    "fit_classifiers",
    "fit_line",
    "fit_linear_layers",
    "flip_signs",
    "foretell",
    "geometry_ceilings",
    "is_collapsed",
    "is_headline",
    "judge_claim",
    "leading_directions",
    "match_clusters",
    "mean_change_interval",
    "mean_corruption_error",
    "mean_delta_interval",
    "mean_over_subjects",
    "mean_score_interval",
    "measure_brain",
    "measure_dissimilarities",
    "name_agreement",
    "name_auroc",
    "name_collapse",
    "name_evidence",
    "name_geometry",
    "name_part",
    "name_probes",
    "name_scores",
    "name_sequence",
    "name_shifts",
    "name_stability",
    "name_verdict",
    "normalise_r2",
    "open_reader",
    "plan_orders",
    "power_of_rank_test",
    "predicted_voxels",
    "probe_features",
    "project_tokens",
    "rank_test",
    "read_change",
    "read_score",
    "read_shift_hits",
    "read_verdict",
    "relative_drop",
    "repair_share",
    "representation_drift",
    "rewiring_measures",
    "score_interval",
    "score_joint",
    "score_labels",
    "score_probes",
    "score_shift",
    "seed_interval",
    "split_name",
    "subject_ceilings",
    "tag_verdicts",
    "to_logit",
    "value_at_accuracy",
    "values_at_shares",
    "weight_distance",
]
