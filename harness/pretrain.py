"""Train the mini backbones again.

Entry point of `palimpsest pretrain`, also for `accelerate launch harness/pretrain.py`.
"""

from harness.commands.pretrain import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
