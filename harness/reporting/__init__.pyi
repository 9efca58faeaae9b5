from .anchoring import (
    format_anchorings,
)
from .atlas import (
    write_atlas,
)
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
from .contrast import (
    Contrast,
    answer_questions,
    contrast_runs,
    read_questions,
    record_question,
)
from .contrast_text import (
    format_contrasts,
)
from .grafts import (
    format_grafts,
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
from .study_record import (
    log_contrast,
    log_report,
)
from .text_table import (
    format_table,
)
from .verdicts import (
    write_findings,
)

__all__ = [
    "ABSENT",
    "Contrast",
    "RunResult",
    "answer_questions",
    "choose_interpolated",
    "compare_runs",
    "contrast_runs",
    "describe_plan",
    "format_anchorings",
    "format_contrasts",
    "format_grafts",
    "format_table",
    "log_contrast",
    "log_report",
    "read_questions",
    "read_run",
    "read_runs",
    "record_question",
    "write_atlas",
    "write_claim",
    "write_findings",
    "write_readout",
    "write_report",
]
