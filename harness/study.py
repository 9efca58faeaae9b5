"""Entry point: Run a grid of runs, then write its report.

python -m harness.study study=demo
"""

from harness.commands.study import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
