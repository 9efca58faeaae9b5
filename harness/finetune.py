"""Fine-tune a backbone, take snapshots and track them.

Entry point of `palimpsest finetune`, also for `accelerate launch harness/finetune.py`.
"""

from harness.commands.finetune import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
