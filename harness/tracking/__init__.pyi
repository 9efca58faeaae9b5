from .mlflow_store import (
    Status,
    TrackedRun,
    tracking_uri,
)
from .queries import (
    Kind,
    mean_curves,
    metric_curves,
    place_columns,
    query,
)
from .tracker import (
    track,
)
from .wise_ft import (
    ALPHAS,
    measure_curve,
)
from .work_items import (
    plan_work,
)

__all__ = [
    "ALPHAS",
    "Kind",
    "Status",
    "TrackedRun",
    "mean_curves",
    "measure_curve",
    "metric_curves",
    "place_columns",
    "plan_work",
    "query",
    "track",
    "tracking_uri",
]
