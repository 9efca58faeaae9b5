"""The stability gap of sequences: steps that are evaluated, measures, and training that does not notice."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_training import interrupted, values
from test_sequences import BOTH, train

from harness.config.compose import config_hash, load_config
from harness.config.run import StabilityConfig
from harness.finetuning.boundaries import evaluation_steps
from harness.finetuning.snapshots import read_manifest
from harness.measures.stability import (
    measure_gap,
    min_acc,
    name_stability,
    wc_acc,
)
from harness.runs.layout import list_snapshots, snapshot_folder

WINDOW = "stability.window=2"


@pytest.mark.parametrize(
    ("window", "interval", "ends", "expected"),
    [
        (2, 1, [4, 8], [2, 3, 4, 5, 6, 8]),
        (5, 2, [6, 20], [2, 4, 6, 8, 10, 20]),
        # neither before the task's own start nor after the next one's end
        (100, 3, [4, 8, 12], [1, 4, 5, 7, 8, 11, 12]),
        (1, 2, [4, 8], [4, 8]),
        (0, 1, [4, 8], []),
        (3, 1, [8], []),
    ],
)
def test_steps_around_the_ends_of_tasks(
    window: int, interval: int, ends: list[int], expected: list[int]
) -> None:
    assert evaluation_steps(StabilityConfig(window=window, interval=interval), ends) == expected


def test_a_gap_by_hand() -> None:
    curve = {8: 0.5, 10: 0.9, 11: 0.6, 12: 0.4, 13: 0.4, 14: 0.8, 19: 0.1}
    assert measure_gap(curve, 10, 14) == pytest.approx((0.9, 0.5, 2, 0.4))
    assert measure_gap({10: 0.5, 11: 0.7, 12: 0.6}, 10, 14) == pytest.approx((0.5, -0.1, 2, 0.0))
    assert measure_gap({9: 0.5, 11: 0.7}, 10, 14) is None
    assert measure_gap({10: 0.5, 15: 0.7}, 10, 14) is None


# three tasks that end at steps 10, 20 and 30
CURVES = {
    "a": {9: 0.1, 10: 0.9, 11: 0.5, 20: 0.8, 21: 0.3, 30: 0.7},
    "b": {19: 0.2, 20: 0.6, 21: 0.5, 30: 0.55},
    "c": {29: 0.9, 30: 1.0},
}


def test_worst_cases_by_hand() -> None:
    # .1 came before the end of the task, and does not count
    assert min_acc([CURVES["a"]], [10], 20) == 0.5
    assert min_acc([CURVES["a"], CURVES["b"]], [10, 20], 30) == pytest.approx((0.3 + 0.5) / 2)
    assert wc_acc(1.0, 0.4, 3) == pytest.approx(1 / 3 + 2 / 3 * 0.4)
    rows: dict[int, dict[str, float]] = {}
    for step, found in name_stability(CURVES, ["a", "b", "c"], [10, 20, 30], 5):
        rows.setdefault(step, {}).update(found)
    assert rows[10] == pytest.approx(
        {
            "stability/a/before": 0.9,
            "stability/a/depth": 0.4,
            "stability/a/depth_step": 1,
            "stability/a/recovery": 0.0,
        }
    )
    assert rows[20]["stability/a/depth"] == pytest.approx(0.5)
    assert rows[20]["stability/b/depth"] == pytest.approx(0.1)
    assert rows[20]["stability/all/min_acc"] == 0.5
    assert rows[20]["stability/all/wc_acc"] == pytest.approx(0.6 / 2 + 0.5 / 2)
    assert rows[30] == pytest.approx(
        {"stability/all/min_acc": 0.4, "stability/all/wc_acc": 1 / 3 + 2 / 3 * 0.4}
    )


def test_auroc_is_named_and_never_mixed_with_accuracy() -> None:
    rows = [
        row for _, found in name_stability(CURVES, ["a", "b", "c"], [10, 20, 30], 5, ["b"]) for row in found
    ]
    assert "stability/b/depth_auroc" in rows and "stability/b/depth_step" in rows
    assert not any(name.startswith("stability/all") for name in rows)
    rows = [row for _, found in name_stability(CURVES, ["a", "b"], [10, 20], 5, ["a", "b"]) for row in found]
    assert "stability/all/wc_acc_auroc" in rows


def test_evaluation_leaves_training_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # dropout would tell if a random number were drawn
    random = [BOTH, "method=lora", "method.dropout=0.5"]
    train(tmp_path / "without", *random)
    with interrupted(6, monkeypatch):
        train(tmp_path / "with", *random, WINDOW)
    train(tmp_path / "with", *random, WINDOW)
    assert list_snapshots(tmp_path / "with") == list_snapshots(tmp_path / "without")
    for step in list_snapshots(tmp_path / "with"):
        found = [read_manifest(snapshot_folder(tmp_path / name, step)) for name in ("with", "without")]
        assert found[0] == found[1]
    rows, plain = values(tmp_path / "with"), values(tmp_path / "without")
    added = {name: value for name, value in rows.items() if name[0].startswith("stability/")}
    assert {name: value for name, value in rows.items() if name not in added} == plain
    assert sorted(step for name, step in added if name == "stability/digits/accuracy") == [2, 3, 4, 5, 6, 8]
    assert sorted(step for name, step in added if name == "stability/textures/accuracy") == [5, 6, 8]


def test_a_run_without_evaluation_keeps_its_name() -> None:
    plain, window = (load_config([BOTH, *more]) for more in ([], [WINDOW]))
    assert config_hash(plain) != config_hash(window)
    # how often none is evaluated makes no other run
    assert config_hash(load_config([BOTH, "stability.window=0"])) == config_hash(plain)
