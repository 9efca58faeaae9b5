from .columns import (
    ABSENT,
)
from .comparison import (
    RunResult,
    choose_interpolated,
    compare_runs,
    format_table,
    read_run,
    read_runs,
)
from .page import (
    write_report,
)
from .readout import (
    write_readout,
)

__all__ = [
    "ABSENT",
    "RunResult",
    "choose_interpolated",
    "compare_runs",
    "format_table",
    "read_run",
    "read_runs",
    "write_readout",
    "write_report",
]
