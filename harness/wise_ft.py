"""Measure runs between their first and last weights.

Entry point of `palimpsest wise-ft`, also for `accelerate launch harness/wise_ft.py`.
"""

from harness.commands.wise_ft import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
