from .mlflow_store import (
    Status,
    TrackedRun,
    tracking_uri,
)
from .queries import (
    metric_curves,
    query,
)
from .tracker import (
    track,
)
from .verdict_tags import (
    read_tags,
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
