"""Put pretrained weights back into runs, layer by layer.

Entry point of `palimpsest graft`, also for `accelerate launch harness/graft.py`.
"""

from harness.commands.graft import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
