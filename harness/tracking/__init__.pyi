from .mlflow_store import (
    Status,
    TrackedRun,
    tracking_uri,
)
from .queries import (
    metric_curves,
    query,
)
from .results import (
    read_tags,
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
    "Status",
    "TrackedRun",
    "measure_curve",
    "metric_curves",
    "plan_work",
    "query",
    "read_tags",
    "track",
    "tracking_uri",
]
