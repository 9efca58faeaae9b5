from .curves import (
    metric_curves,
)
from .graft import (
    measure_grafts,
)
from .graft_records import (
    read_summary,
)
from .logged_model import (
    save_model,
)
from .network_map import (
    map_network,
)
from .queries import (
    query,
)
from .start_mappings import (
    prepare_start,
)
from .store.connection import (
    tracking_uri,
)
from .store.keys import (
    Status,
    metric_key,
)
from .store.study_run import (
    log_study,
)
from .store.tracked_run import (
    TrackedRun,
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
    "log_study",
    "map_network",
    "measure_curve",
    "measure_grafts",
    "metric_curves",
    "metric_key",
    "plan_work",
    "prepare_start",
    "query",
    "read_summary",
    "save_model",
    "track",
    "tracking_uri",
]
