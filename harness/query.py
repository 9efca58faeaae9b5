"""Entry point: Print curves out of MLflow.

python -m harness.query rewiring --by backbone,roi
"""

from harness.commands.query import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
