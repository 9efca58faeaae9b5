"""Print curves of metrics: entry point of `palimpsest query`."""

from harness.commands.query import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
