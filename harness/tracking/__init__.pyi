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
    "log_table",
    "map_network",
    "measure_curve",
    "metric_curves",
    "plan_work",
    "query",
    "read_tags",
    "track",
    "tracking_uri",
]
