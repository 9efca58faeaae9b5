"""Draw what regions read of images: entry point of `palimpsest readout`."""

from harness.commands.readout import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
