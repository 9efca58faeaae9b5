"""Entry point: Draw what regions read of images.

python -m harness.readout runs/<study>/<run>
"""

from harness.commands.readout import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
