from .grid import (
    expand_grid,
)
from .launching import (
    launch,
    launch_options,
)
from .plan import (
    print_plan,
)
from .pool import (
    prepare_server,
)
from .study import (
    run_study,
)

__all__ = [
    "expand_grid",
    "launch",
    "launch_options",
    "prepare_server",
    "print_plan",
    "run_study",
]
