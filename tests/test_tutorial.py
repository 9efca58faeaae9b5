"""The tutorial runs as written, from the first block to the last."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness
from harness.commands.finetune import run
from harness.config.compose import load_config
from harness.config.folders import REPOSITORY

PAGE = REPOSITORY / "docs" / "tutorial.md"
LARGEST = 200_000  # bytes of a picture in the repository


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield tmp_path
    sys.modules.pop("recordings", None)


def test_every_block_of_the_tutorial_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(
        r"^```(python|bash)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert [kind for kind, _ in blocks].count("python") >= 5
    names: dict[str, object] = {}
    for kind, code in blocks:
        file = re.match(r"# (\w+\.py)\n", code)
        if file:
            (folder / file[1]).write_text(code)
        elif kind == "bash":
            program, command, *overrides = shlex.split(code)
            assert (program, command) == ("palimpsest", "finetune")
            run(load_config(overrides))
        else:
            exec(compile(code, str(PAGE), "exec"), names)
    assert "300 rows, 240 voxels, 11 regions" in capsys.readouterr().out
    # the numbers that the text quotes
    floor, change = names["floor"], names["change"]
    assert isinstance(floor, harness.Comparison) and isinstance(change, harness.Comparison)
    assert 1.5 < change.rois.loc["all", "wasserstein"] / floor.rois.loc["all", "wasserstein"] < 4
    mapping = names["mapping"]
    assert isinstance(mapping, harness.Mapping) and mapping.r2.mean() > 0.05
    # the page makes each of its pictures, and the committed ones are small
    shown = re.findall(r"\]\(images/(tutorial_\w+\.png)\)", PAGE.read_text(encoding="utf-8"))
    assert len(shown) >= 4
    for name in shown:
        assert (folder / name).stat().st_size > 5_000
        assert 5_000 < (PAGE.parent / "images" / name).stat().st_size < LARGEST
