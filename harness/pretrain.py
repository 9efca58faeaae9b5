"""Entry point: Train the mini backbones again.

accelerate launch harness/pretrain.py objective=supervised
"""

from harness.commands.pretrain import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
