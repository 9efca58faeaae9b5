"""Entry point: Measure curves of WiSE-FT.

accelerate launch harness/wise_ft.py runs/<study>/<run>
"""

from harness.commands.wise_ft import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
