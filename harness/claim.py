"""Test whether brain-like networks forget less: entry point of `palimpsest claim`."""

from harness.commands.claim import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
