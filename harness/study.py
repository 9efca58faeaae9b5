"""Run a grid of runs, then write its report: entry point of `palimpsest study`."""

from harness.commands.study import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
