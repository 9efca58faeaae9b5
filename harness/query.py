"""Print curves of metrics: entry point of `palimpsest query`; also the function `harness.query`."""

from harness.commands.query import main
from harness.storage import exit_with_one_line
from harness.tracking import query

__all__ = ["main", "query"]

if __name__ == "__main__":
    exit_with_one_line(main)
