"""Entry point: Track the snapshots of runs.

accelerate launch harness/track.py runs/<study>/<run>
"""

from harness.commands.track import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
