"""Compare A with B in pairs of runs: entry point of `palimpsest contrast`."""

from harness.commands.contrast import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
