"""Entry point: Write the report of a study.

python -m harness.report runs/<study>
"""

from harness.commands.report import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
