"""Entry point: Hold FactorTopy to recorded numbers.

python -m harness.conformance FILE.npz
"""

from harness.commands.conformance import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
