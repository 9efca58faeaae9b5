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
from .study import (
    run_study,
)

__all__ = [
    "expand_grid",
    "launch",
    "launch_options",
    "print_plan",
    "run_study",
]
