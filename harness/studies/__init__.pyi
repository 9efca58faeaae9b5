from .grid import (
    expand_grid,
)
from .plan import (
    print_plan,
)
from .study import (
    run_study,
)

__all__ = [
    "expand_grid",
    "print_plan",
    "run_study",
]
