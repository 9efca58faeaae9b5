"""Entry point: Fine-tune a backbone, take snapshots and track them.

accelerate launch harness/finetune.py backbone=mini_clip task=digits method=full seed=0
"""

from harness.commands.finetune import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
