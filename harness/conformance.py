"""Compare FactorTopy with recorded numbers: entry point of `palimpsest conformance`."""

from harness.commands.conformance import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
