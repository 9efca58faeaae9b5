from .mlflow_store import (
    Status,
    TrackedRun,
    log_table,
    tracking_uri,
)
from .network_map import (
    map_network,
)
from .queries import (
    metric_curves,
    query,
)
from .results import (
    follow_run,
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
    "follow_run",
    "log_table",
    "map_network",
    "measure_curve",
    "metric_curves",
    "plan_work",
    "query",
    "track",
    "tracking_uri",
]
