"""Packages of the distribution; everything else is in pyproject.toml.

``configs/`` lies at the top of the repository and inside the package `harness` in a wheel.
"""

from pathlib import Path

from setuptools import find_packages, setup

GROUPS = sorted(path.name for path in Path("configs").iterdir() if path.is_dir())

setup(
    packages=[
        *find_packages(include=["harness*", "tasks*"]),
        "harness.configs",
        *(f"harness.configs.{group}" for group in GROUPS),
    ],
    package_dir={"harness.configs": "configs"},
)
