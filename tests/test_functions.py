"""Users' functions: found, called and checked, or rejected with one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.storage.errors import InputError
from harness.storage.functions import (
    call_function,
    import_function,
)

SOURCE = """
import math
from harness.storage import InputError

number = 3

def double(x, *, plus=0):
    return 2 * x + plus

def fail():
    math.sqrt(-1)

def refuse():
    raise InputError("data/x.npy: no such file")
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a working directory with a module and a package, neither on the path."""
    (tmp_path / "palimpsest_lab_a.py").write_text(SOURCE)
    package = tmp_path / "palimpsest_lab_b"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text("from palimpsest_lab_a import double\n")
    (tmp_path / "palimpsest_lab_c.py").write_text("import palimpsest_no_such_library\n")
    (tmp_path / "palimpsest_lab_d.py").write_text("x = 1 +\n")
    # same name as a module of the standard library: must not be found
    (tmp_path / "colorsys.py").write_text("def rgb_to_hsv(*a): return 'shadowed'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("palimpsest_lab_")]:
        del sys.modules[name]


def test_a_function_is_found_in_the_working_directory_and_in_packages(lab: Path) -> None:
    assert import_function("brain.function", "palimpsest_lab_a:double")(2) == 4
    assert import_function("brain.function", "palimpsest_lab_b.parts:double")(3) == 6
    assert import_function("brain.function", "json:loads")("1") == 1
    assert sys.path[-1] == str(lab)


def test_the_working_directory_shadows_nothing(lab: Path) -> None:
    sys.modules.pop("colorsys", None)
    assert import_function("brain.function", "colorsys:rgb_to_hsv")(0, 0, 0) == (0.0, 0.0, 0)


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("double", "found 'double', expected package.module:function"),
        ("a b:c", "found 'a b:c', expected package.module:function"),
        (
            "palimpsest_lab_x:f",
            "found no module palimpsest_lab_x, expected one in .* or an installed package",
        ),
        ("palimpsest_lab_b.x:f", r"found no module palimpsest_lab_b\.x, expected one in"),
        ("palimpsest_lab_a:duoble", "unknown function of palimpsest_lab_a 'duoble'.*mean 'double'"),
        ("palimpsest_lab_a:number", "palimpsest_lab_a:number is of type int, expected a function"),
        ("palimpsest_lab_c:f", "palimpsest_lab_c cannot be imported .*palimpsest_no_such_library.*line 1"),
        ("palimpsest_lab_d:f", "palimpsest_lab_d cannot be imported .*SyntaxError"),
    ],
)
def test_what_cannot_be_imported_is_one_line(lab: Path, reference: str, problem: str) -> None:
    with pytest.raises(InputError, match=f"^task.function: {problem}") as error:
        import_function("task.function", reference)
    assert "\n" not in str(error.value)


def test_arguments_are_passed_by_name(lab: Path) -> None:
    assert call_function("brain", "palimpsest_lab_a:double", {"x": 4, "plus": 1}, int) == 9


@pytest.mark.parametrize(
    ("function", "arguments", "problem"),
    [
        (
            "double",
            {"y": 1},
            r"brain.arguments: found y, expected those of palimpsest_lab_a:double\(x, \*, plus",
        ),
        ("double", {}, r"brain.arguments: found none, expected those of palimpsest_lab_a:double\(x"),
        (
            "double",
            {"x": "a"},
            "brain.function: palimpsest_lab_a:double raised TypeError: .* line 8; expected",
        ),
        ("double", {"x": 1}, "brain.function: palimpsest_lab_a:double returned a int, expected a str"),
        (
            "fail",
            {},
            "brain.function: palimpsest_lab_a:fail raised ValueError: .*, palimpsest_lab_a.py line 11",
        ),
        ("refuse", {}, "brain.function: palimpsest_lab_a:refuse: data/x.npy: no such file"),
    ],
)
def test_what_goes_wrong_in_a_function_is_one_line(
    lab: Path, function: str, arguments: dict[str, object], problem: str
) -> None:
    with pytest.raises(InputError, match=f"^{problem}") as error:
        call_function("brain", f"palimpsest_lab_a:{function}", arguments, str)
    assert "\n" not in str(error.value)
