"""Send journals to MLflow: entry point of `palimpsest forward`."""

from harness.commands.forward import main
from harness.storage import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(main)
