"""Map networks as they are: entry point of `palimpsest map`."""

from harness.commands.map import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
