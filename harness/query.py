"""Entry point: Print curves out of MLflow. The function of the Python interface stands here too.

python -m harness.query rewiring --by backbone,roi
"""

from harness.commands.query import main
from harness.storage import exit_with_one_line
from harness.tracking import query

__all__ = ["main", "query"]

if __name__ == "__main__":
    exit_with_one_line(main)
