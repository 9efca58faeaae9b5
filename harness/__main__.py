"""Entry point: `python -m harness` is `palimpsest`."""

from harness.cli import main

if __name__ == "__main__":
    main()
