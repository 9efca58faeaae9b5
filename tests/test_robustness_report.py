"""Shifts in a study's report: which ones, their table, and effective robustness of its networks."""

from __future__ import annotations

from pathlib import Path

import made_study
import numpy as np
import pytest
from made_study import make_brain, write_run

from harness.measures.per_image import Hits
from harness.reporting.figures.robustness import draw_robustness, draw_shifts
from harness.reporting.page import choose_lines
from harness.reporting.robustness import (
    choose_shift_columns,
    judge_robustness,
    measured_shifts,
    write_robustness,
)
from harness.reporting.run_results import read_runs

N = 200
# clean accuracy of every network before; fine-tuning adds 0.1
CLEAN = {"mini_clip": 0.5, "mini_supervised": 0.6, "mini_random": 0.3}


def scored(share: float, seed: int) -> dict:
    right = np.random.default_rng(seed).permutation(N) < round(share * N)
    return {"accuracy": float(right.mean()), "ece": 0.1, "right": Hits(right).encode()}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three networks; under the shift all lose a third, but `mini_supervised` loses nothing when tuned."""
    root, make = tmp_path_factory.mktemp("runs"), made_study.make_probes

    def make_probes(config, progress, strength):
        found = make(config, progress, strength)
        clean = CLEAN[config.backbone.name] + 0.1 * progress
        robust = config.backbone.name == "mini_supervised" and progress == 1
        accuracy = clean if robust else clean * 2 / 3
        record = {
            "n": N,
            "n_clean": N,
            "hash": "made",
            "chance": 0.1,
            "clean": {"linear": scored(clean, 1)},
            "parts": {"textures": {"linear": scored(accuracy, 1)}},
        }
        return found | {"shifts": {"shapes": {"textures": record}}}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made_study, "make_probes", make_probes)
        for backbone in CLEAN:
            overrides = [f"runs_dir={root}", "study.name=shifted", f"backbone={backbone}", "task=digits"]
            write_run([*overrides, "mapping.floor_refits=2"], make_brain(2, 8), steps=(0, 8))
    return root / "shifted"


def test_table_and_effective_robustness(study):
    runs = read_runs(study)
    assert measured_shifts(runs) == [("shapes", "textures")]
    columns = choose_shift_columns(runs)
    assert [(column.metric.split("/")[-1], column.at) for column in columns] == [
        ("accuracy", "start"),
        ("accuracy", "end"),
        ("clean_accuracy", "end"),
        ("relative_drop", "end"),
    ]
    assert {column.above for column in columns} == {"shapes under textures"}
    (judged,) = judge_robustness(choose_lines(runs))
    found = {one.name: one for one in judged.found}
    assert len(found) == 6
    assert found["mini_supervised, after"].value > 0.15 and found["mini_supervised, after"].low > 0
    # the others lie on a line of their own, which the robust one bends
    assert all(one.low < 0.02 for name, one in found.items() if name != "mini_supervised, after")
    # the tasks that networks were tuned on are the second in-distribution set
    assert judged.sets == ("digits",) and len(judged.controlled) == 6
    table = write_robustness(judged)
    assert table["headings"][-1] == "controlled for digits too" and len(table["rows"]) == 6
    assert table["rows"][0][0] == "mini_clip, before" and "[" in table["rows"][0][4]


def test_figures(study):
    lines = choose_lines(read_runs(study))
    curves = draw_shifts(lines)
    assert [ax.get_title(loc="left") for ax in curves.axes if ax.axison] == ["shapes, textures"]
    judged = judge_robustness(lines)
    (panel,) = [ax for ax in draw_robustness(lines, judged).axes if ax.axison]
    assert panel.get_xscale() == panel.get_yscale() == "logit" and panel.get_xlim() == panel.get_ylim()
    # the diagonal, the line, and an interval and a point per network
    assert len(panel.lines) == 2 + 2 * 6


def test_a_study_without_shifts_has_none(tmp_path):
    write_run(
        [f"runs_dir={tmp_path}", "study.name=plain", "mapping.floor_refits=2"], make_brain(2, 8), (0, 8)
    )
    runs = read_runs(tmp_path / "plain")
    assert measured_shifts(runs) == choose_shift_columns(runs) == judge_robustness(choose_lines(runs)) == []
