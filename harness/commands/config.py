"""Print the configuration as resolved."""

from __future__ import annotations

import sys

from harness.config import (
    load_config,
    to_yaml,
)


def main() -> None:
    """Print the configuration that the overrides on the command line resolve to."""
    print(to_yaml(load_config(sys.argv[1:])), end="")
