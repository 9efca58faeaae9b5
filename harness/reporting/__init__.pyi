from .claim_page import (
    describe_plan,
    write_claim,
)
from .columns import (
    ABSENT,
)
from .comparison import (
    choose_interpolated,
    compare_runs,
)
from .page import (
    write_report,
)
from .readout import (
    write_readout,
)
from .run_results import (
    RunResult,
    read_run,
    read_runs,
)
from .text_table import (
    format_table,
)

__all__ = [
    "ABSENT",
    "RunResult",
    "choose_interpolated",
    "compare_runs",
    "describe_plan",
    "format_table",
    "read_run",
    "read_runs",
    "write_claim",
    "write_readout",
    "write_report",
]
