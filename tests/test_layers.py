"""Architecture: which package may import which, and only names that the other lists."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.config.folders import REPOSITORY

# from the ground up: a package imports only from those before it
FLOORS = (
    "storage",
    "config",
    "tasks",
    "backbones",
    "brains",
    "tokens",
    "mappings",
    "runs",
    "measures",
    "finetuning",
    "tracking",
    "plot",
    "reporting",
    "exports",
    "studies",
    "interface",
    "commands",
)
ENTRY_POINTS = {
    "__main__",
    "claim",
    "cli",
    "conformance",
    "contrast",
    "export",
    "finetune",
    "graft",
    "map",
    "pretrain",
    "query",
    "readout",
    "report",
    "study",
    "track",
    "wise_ft",
}
MODULES = sorted([*(REPOSITORY / "harness").rglob("*.py"), *(REPOSITORY / "tasks").rglob("*.py")])


def package_of(module: str) -> str:
    """Name a module's package: ``harness.brains.nsd.rois`` → ``brains``, ``tasks.shapes`` → ``tasks``."""
    parts = module.split(".")
    return "tasks" if parts[0] == "tasks" else parts[1]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


def imports_of(path: Path) -> Iterator[tuple[str, str]]:
    """List module and name of each of our imports in a file, wherever it occurs."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module.split(".")[0] in ("harness", "tasks"):
                yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name.split(".")[0] not in ("harness", "tasks"), f"{path}: import {alias.name}"


def loads(path: Path) -> set[str]:
    """List our modules that importing a file loads: not those imported in functions or for annotations."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0]
            in (
                "harness",
                "tasks",
            )
        ):
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & {*map(name_of, MODULES)}
            found |= inside or {node.module}
    return found


def listed_by(package: str) -> set[str]:
    folder = REPOSITORY / (package if package == "tasks" else f"harness/{package}")
    tree = ast.parse((folder / "__init__.pyi").read_text(encoding="utf-8"))
    (listed,) = (node.value for node in tree.body if isinstance(node, ast.Assign))
    return set(ast.literal_eval(listed))


def test_the_top_shows_entry_points_and_packages_only() -> None:
    inside = list((REPOSITORY / "harness").iterdir())
    files = {path.stem for path in inside if path.suffix == ".py"} - {"__init__"}
    assert files == ENTRY_POINTS
    folders = {path.name for path in inside if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(FLOORS) - {"tasks"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down_and_through_the_interface(path: Path) -> None:
    own = package_of(name_of(path))
    # `python -m harness.brains` is a command, whichever package it is in
    entry = own in ENTRY_POINTS or path.name == "__main__.py" or own == "__init__"
    for module, name in imports_of(path):
        other = package_of(f"{module}.{name}" if module in ("harness", "tasks") else module)
        if other == own and not entry:
            continue
        if other in ("commands", "cli"):
            assert entry, f"{path}: only entry points import a command"
            continue
        if not entry:
            assert FLOORS.index(other) < FLOORS.index(own), f"{own} imports {module}, a floor above it"
        interface = "tasks" if other == "tasks" else f"harness.{other}"
        submodule = module == interface and (REPOSITORY / interface.replace(".", "/") / f"{name}.py").exists()
        assert module == interface, f"{path}: imports from inside {interface}"
        assert submodule or name in listed_by(other), f"{path}: {interface} does not list {name}"


@pytest.mark.parametrize("package", FLOORS[:-1])
def test_what_a_package_lists_is_there(package: str) -> None:
    module = __import__(
        package if package == "tasks" else f"harness.{package}", fromlist=sorted(listed_by(package))
    )
    assert set(module.__all__) >= listed_by(package)
    for name in listed_by(package):
        assert hasattr(module, name), name


def test_no_module_loads_itself_in_a_circle() -> None:
    graph = {name_of(path): loads(path) for path in MODULES if path.name != "__init__.py"}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " → ".join([*above, module])
        if module in graph and module not in done:
            for other in sorted(graph[module]):
                visit(other, (*above, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())
    assert len(done) == len(graph)
