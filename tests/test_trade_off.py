"""What penalties keep at equal accuracy: by hand, as a test, and in the report of a study of anchors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_report_figures import Rows, make_run

from harness.measures.sign_flips import flip_signs, flip_upwards
from harness.measures.trade_off import compare_trade_offs, kept_at_accuracy
from harness.reporting.anchoring import (
    Anchoring,
    find_anchorings,
    format_anchorings,
    judge,
    write_anchoring,
)
from harness.reporting.figures.trade_off import draw_trade_offs
from harness.reporting.run_results import RunResult

FREE = (0.9, -0.4)


def test_what_is_kept_by_hand() -> None:
    accuracy, change = np.array([0.9, 0.88, 0.92, 0.7]), np.array([-0.4, -0.1, -0.2, 0.0])
    # among the runs: −0.2 at 0.92; a quarter of the way from 0.88 to 0.92, accuracy is 0.89: −0.125; and on
    # the way to 0.7, at 3/22 of it, −0.173
    assert kept_at_accuracy(accuracy, change, 0.89) == pytest.approx(-0.125)
    assert kept_at_accuracy(accuracy[2:], change[2:], 0.89) == pytest.approx(-0.2 * 19 / 22)
    assert kept_at_accuracy(accuracy, change, 0.5) == 0.0
    assert np.isnan(kept_at_accuracy(accuracy, change, 0.95))
    # a run on the floor counts
    assert kept_at_accuracy(np.array([0.9, 0.89]), np.array([-0.4, -0.3]), 0.89) == -0.3


def test_flips_in_one_direction_by_hand() -> None:
    # of the eight patterns of ±1 ±2 ±4, the sums 7, 5, 3, … are all different
    assert flip_upwards(np.array([1.0, 2, 4])) == 1 / 8
    assert flip_upwards(np.array([-1.0, 2, 4])) == 2 / 8
    assert flip_upwards(np.array([-1.0, -2, -4])) == 1
    assert flip_upwards(np.zeros(4)) == 1
    assert flip_upwards(np.full(5, 0.3)) == 1 / 32
    many = np.random.default_rng(0).normal(0.3, 1, 12)
    assert flip_upwards(many) == pytest.approx(flip_signs(many[:, None]).p[0] / 2)


def test_two_families_are_compared_seed_by_seed() -> None:
    # both share the run without a penalty; the one keeps 0.1 more in every seed
    one = [np.array([FREE, (0.895, -0.2 - 0.01 * seed)]) for seed in range(5)]
    other = [np.array([FREE, (0.895, -0.3 - 0.01 * seed)]) for seed in range(5)]
    found = compare_trade_offs(one, other)
    assert found.difference == pytest.approx(0.1) and found.n_seeds == 5
    assert (found.p_better, found.p_worse, found.smallest) == (1 / 32, 1.0, 1 / 32)
    # a penalty that costs more than a point scores what no penalty scores, or what lies on the way
    costly = compare_trade_offs([np.array([FREE, (0.8, 0.0)])], [np.array([FREE, (0.9, -0.5)])])
    assert costly.one[0] == pytest.approx(-0.4 + 0.1 * 0.4) and costly.other[0] == -0.4
    assert costly.interval is None and costly.smallest == 0.5


@pytest.mark.parametrize("gain", [0.0, 0.1])
def test_level_and_power(gain: float) -> None:
    """Two families of three noisy runs: p ≤ .05 in at most a twentieth of studies, unless they differ."""
    rng, rejected, n_studies = np.random.default_rng(0), 0, 400
    for _ in range(n_studies):
        curves = rng.normal((0.9, -0.2), (0.01, 0.03), (2, 5, 4, 2))
        # both begin without a penalty, which keeps less
        curves[0, :, 0] = curves[1, :, 0] = rng.normal((0.9, -0.4), (0.01, 0.03), (5, 2))
        curves[0, :, 1:, 1] += gain
        scores = [[kept_at_accuracy(*curve.T, curve[0, 0] - 0.01) for curve in family] for family in curves]
        rejected += flip_upwards(np.subtract(*scores)) <= 0.05
    # 1/32 is all that five seeds can reach below .05: 12.5 expected, sd 3.5; and ties make it fewer
    assert (rejected > 300) if gain else (2 < rejected < 24), rejected


def make_anchored(seed: int, accuracy: float, change: float, *overrides: str) -> RunResult:
    rows: Rows = {
        "brain/all/r2": {0: 0.3, 8: 0.2},
        "task/digits/accuracy": {0: 0.1, 8: accuracy},
        "forgetting/shapes/delta_lp": {0: 0.0, 8: change - 0.1},
        "forgetting/textures/delta_lp": {0: 0.0, 8: change + 0.1},
    }
    run = make_run(rows, f"seed={seed}", "probes.tasks=[shapes, textures]", *overrides)
    return replace(run, folder=Path("-".join([str(seed), *overrides])))


@pytest.fixture
def runs() -> list[RunResult]:
    found = []
    for seed in range(5):
        noise = 0.002 * seed
        found += [
            make_anchored(seed, 0.9, -0.4 + noise, "method=full"),
            make_anchored(seed, 0.8, -0.3, "method=lora"),
        ]
        for weight, cost in ((1, 0.0), (10, 0.005)):
            for control, kept in (("none", 0.3), ("shuffled", 0.1), ("random", 0.3 if seed else 0.2)):
                anchored = ["method=brain_anchor", f"method.weight={weight}", f"method.control={control}"]
                found.append(make_anchored(seed, 0.9 - cost, -0.4 + kept + noise - cost, *anchored))
    return found


def test_a_study_of_anchors_answers(runs: list[RunResult]) -> None:
    (found,) = find_anchorings(runs)
    assert found.title == "mini_clip, digits"
    assert [curve.name for curve in found.curves] == ["brain", "shuffled brain", "random mapping"]
    brain = found.curves[0]
    assert brain.weights == (0.0, 1.0, 10.0) and brain.seeds == (0, 1, 2, 3, 4)
    # the mean over probes
    np.testing.assert_allclose(brain.points[1], [(0.9, -0.398), (0.9, -0.098), (0.895, -0.103)])
    first, second = judge(found)
    assert first == (
        "The brain beats its shuffled self: where accuracy is within 1 point of that without a penalty, the "
        "best Δ_LP is −0.096 against −0.296, a difference of +0.200 [+0.200, +0.200] (one-sided p = 0.031 by "
        "exact sign flips of seeds; 5 seeds cannot reach less than 0.031)."
    )
    # one seed alone differs, in the brain's favour: half of all signs are as good
    assert second.startswith("The brain is not shown to beat a random mapping") and "p = 0.500" in second
    assert format_anchorings(runs) == "\n".join([found.title, first, second])
    table = write_anchoring(found)["rows"]
    assert isinstance(table, list) and len(table) == 1 + 3 * 2
    assert table[0] == ["none (full)", "0", "5", "0.900 ± 0.000", "−0.396 ± 0.003"]
    assert table[3][:2] == ["shuffled brain", "1"]


def test_the_brain_can_do_worse(runs: list[RunResult]) -> None:
    (found,) = find_anchorings(runs)
    brain, shuffled, random = found.curves
    swapped = Anchoring("x", (replace(brain, points=shuffled.points), replace(shuffled, points=brain.points)))
    assert judge(swapped)[0].startswith("The brain does worse than its shuffled self")
    assert judge(Anchoring("x", (brain, random)))[0].startswith("No runs with control=shuffled")


def test_only_runs_that_share_all_else_are_compared(runs: list[RunResult]) -> None:
    assert find_anchorings([run for run in runs if run.config.method.name != "brain_anchor"]) == []
    assert find_anchorings([run for run in runs if run.config.method.name != "full"]) == []
    # a seed without one of the weights is left out of that family alone
    lacking = [
        run
        for run in runs
        if not (run.config.seed == 2 and getattr(run.config.method, "control", "") == "shuffled")
    ]
    (found,) = find_anchorings(lacking)
    assert [len(curve.seeds) for curve in found.curves] == [5, 4, 5]
    assert found.rivals["shuffled brain"].n_seeds == 4
    other = [make_anchored(0, 0.9, 0.0, "method=brain_anchor", "finetune.lr=1e-5")]
    assert len(find_anchorings([*runs, *other])) == 1


def test_the_figure_shows_every_family(runs: list[RunResult]) -> None:
    figure = draw_trade_offs(find_anchorings(runs))
    (ax,), (legend,) = figure.axes, figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["brain", "shuffled brain", "random mapping", "no penalty"]
    means = {line.get_label(): line.get_xydata() for line in ax.get_lines()}
    np.testing.assert_allclose(means["brain"], [(-0.096, 0.9), (-0.101, 0.895)])
    np.testing.assert_allclose(means["no penalty"], [(-0.396, 0.9)])
