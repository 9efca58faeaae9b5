"""Write voxelwise maps for other programs: entry point of `palimpsest export`."""

from harness.commands.export import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
