"""A fresh clone works: names that shadow nothing, an install that can be imported from anywhere."""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness.config.folders import REPOSITORY

REGISTRY = re.compile(
    r"https?://[^\s\"'<>]*(/simple\b|\.whl\b|\.tar\.gz\b|\.tgz\b)"
    r"|(index-url|find-links|registry)[ =:]+[\"']?https?:",
    re.IGNORECASE,
)


def test_no_module_shadows_what_an_entry_point_imports() -> None:
    # launching harness/finetune.py puts harness/ first on the path
    ours = {
        path.stem
        for path in (REPOSITORY / "harness").iterdir()
        if path.suffix in ("", ".py") and path.name[0] != "_"
    }
    assert {"config", "tracking", "brains"} <= ours
    taken = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions())
    assert not ours & taken


def test_registry_addresses_are_recognised() -> None:
    address = "https://" + "example.org"
    for line in (
        f"--index-url {address}",
        f"{address}/simple/torch",
        f"x @ {address}/x-1.0-py3-none-any.whl",
    ):
        assert REGISTRY.search(line), line
    for line in (f"see {address}/page", "a package registry", "torch==2.15.0"):
        assert not REGISTRY.search(line), line


def test_no_file_holds_a_registry_address() -> None:
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout: what belongs to the project is not known")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    found = [
        name
        for name in filter(None, listed.split("\0"))
        if (REPOSITORY / name).is_file()
        and REGISTRY.search((REPOSITORY / name).read_text(encoding="utf-8", errors="ignore"))
    ]
    assert found == []


def test_every_dependency_has_a_version_that_it_accepts() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    extras = project["optional-dependencies"].values()
    for text in (*project["dependencies"], *itertools.chain.from_iterable(extras)):
        requirement = Requirement(text)
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), text


def test_packages_and_entry_points_are_found_from_any_folder(tmp_path: Path) -> None:
    try:
        importlib.metadata.version("palimpsest")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("palimpsest is not installed in this environment: make setup")
    code = "import harness, tasks; print(harness.__file__)"
    imported = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert imported.returncode == 0, imported.stderr
    assert Path(imported.stdout.strip()) == REPOSITORY / "harness" / "__init__.py"
    by_path = [sys.executable, str(REPOSITORY / "harness" / "config" / "__main__.py"), "seed=3"]
    printed = subprocess.run(by_path, cwd=tmp_path, capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.startswith("seed: 3\n")
