"""Print a configuration: entry point of `palimpsest config`."""

from harness.commands.config import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
