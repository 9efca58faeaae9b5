"""Describe a brain: entry point of `palimpsest brains`."""

from harness.commands.brains import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
