"""The code that numbers come from: this package's sources, and versions of others."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from harness.config import PACKAGE_FOLDER
from harness.storage import content_hash

# what these hold changes no number of a fit, a probe or a training step
WITHOUT_NUMBERS = ("commands", "reporting", "plot", "exports", "studies", "interface", "tracking/store")


@cache
def hash_sources(*also: str) -> str:
    """Hash the source of everything that computes numbers: packages of `harness`, and `tasks`.

    `also`: names of packages that compute none.
    """
    left_out = tuple(PACKAGE_FOLDER / name for name in WITHOUT_NUMBERS if name not in also)
    parent = PACKAGE_FOLDER.parent
    files = [*PACKAGE_FOLDER.glob("*/**/*.py"), *(parent / "tasks").rglob("*.py")]
    return content_hash(
        {
            path.relative_to(parent).as_posix(): path.read_bytes()
            for path in sorted(files)
            if not any(folder in path.parents for folder in left_out)
        }
    )


@cache
def package_version(package: str) -> str:
    """Return the version of an installed package, or ``not installed``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
