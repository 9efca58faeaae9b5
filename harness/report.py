"""Write the reports of studies: entry point of `palimpsest report`."""

from harness.commands.report import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
