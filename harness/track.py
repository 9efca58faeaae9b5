"""Track the snapshots of runs.

Entry point of `palimpsest track`, also for `accelerate launch harness/track.py`.
"""

from harness.commands.track import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
