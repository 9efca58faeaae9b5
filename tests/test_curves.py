from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from harness.config.compose import load_config
from harness.plot.style import (
    choose_colours,
    choose_ticks,
    embed_png,
    embed_svg,
)
from harness.reporting.figures.curves import (
    draw_alignment,
    draw_forgetting,
    draw_rewiring,
)
from harness.reporting.figures.depths import draw_depths
from harness.reporting.figures.drift import (
    draw_drift,
    find_layers,
)
from harness.reporting.figures.interpolation import draw_interpolation
from harness.reporting.figures.panels import Line
from harness.reporting.run_results import RunResult


def make_run(values: dict[str, dict[int, float]]) -> RunResult:
    rows = [(name, step, value) for name, curve in values.items() for step, value in curve.items()]
    frame = pd.DataFrame(rows, columns=["name", "step", "value"])
    return RunResult(load_config(["mapping.floor_refits=3"]), Path("run"), frame)


def make_line(*runs: dict[str, dict[int, float]], label: str = "clip", colour: str = "#0173b2") -> Line:
    return Line(label, colour, "-", tuple(make_run(run) for run in runs))


BRAIN = {"brain/all/r2": {0: 0.3, 1: 0.3, 8: 0.2}}
LEARNING = BRAIN | {
    "task/digits/accuracy": {0: 0.1, 1: 0.4, 8: 0.9},
    "probe/digits/linear_accuracy": {0: 0.7, 1: 0.7, 8: 0.9},
    "forgetting/shapes/delta_lp": {0: 0.0, 1: -0.1, 8: -0.3},
    "forgetting/counts/delta_lp": {0: 0.0, 1: 0.0, 8: 0.1},
}


def titled(figure: Figure, title: str) -> Axes:
    (found,) = [ax for ax in figure.axes if ax.get_title(loc="left") == title]
    return found


def drawn(ax: Axes, colour: str = "#0173b2", marker: str = "None") -> list[Line2D]:
    return [line for line in ax.lines if to_hex(line.get_color()) == colour and line.get_marker() == marker]


def spans(ax: Axes) -> list[tuple[float, float]]:
    return [(patch.get_y(), patch.get_y() + patch.get_height()) for patch in ax.patches]


def test_a_line_is_mean_sd_and_worst_over_seeds() -> None:
    line = make_line({"task/digits/accuracy": {0: 0.1, 8: 0.7}}, {"task/digits/accuracy": {0: 0.1, 8: 0.9}})
    curve = line.curve("task/<task>/accuracy")
    assert curve["mean"].tolist() == pytest.approx([0.1, 0.8])
    assert curve["sd"].tolist() == pytest.approx([0.0, np.std([0.7, 0.9], ddof=1)])
    assert curve["max"].tolist() == [0.1, 0.9]
    assert line.curve("no/such/metric").empty


def test_one_seed_has_no_spread() -> None:
    assert make_line(LEARNING).curve("task/digits/accuracy")["sd"].tolist() == [0.0, 0.0, 0.0]


def test_forgetting_is_drawn_as_it_is() -> None:
    figure = draw_forgetting([make_line(LEARNING)], ["shapes", "counts"])
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "Task accuracy, head",
        "Δ_LP shapes",
        "Δ_LP counts",
    ]
    (line,) = drawn(titled(figure, "Δ_LP shapes"))
    assert line.get_xydata().tolist() == [[0, 0.0], [1, -0.1], [8, -0.3]]
    limits = {titled(figure, title).get_ylim() for title in ("Δ_LP shapes", "Δ_LP counts")}
    assert len(limits) == 1


def test_zero_shot_has_a_row_of_its_own() -> None:
    zero_shot = {"forgetting/shapes/delta_zs": {0: 0.0, 1: 0.0, 8: -0.5}}
    lines = [make_line(LEARNING | zero_shot), make_line(LEARNING, label="other", colour="#de8f05")]
    figure = draw_forgetting(lines, ["shapes", "counts"])
    assert titled(figure, "Δ_ZS shapes").get_ylim()[0] < -0.5
    assert titled(figure, "Δ_ZS shapes").get_ylim() == titled(figure, "Δ_LP counts").get_ylim()
    assert titled(figure, "Task accuracy, linear probe").get_ylim() == (0, 1.02)
    assert len(figure.axes) == 6
    assert not figure.axes[5].axison


def rewiring(
    place: str, values: dict[int, float], kinds: dict[int, float] | None = None
) -> dict[str, dict[int, float]]:
    name = f"rewiring/{place}/wasserstein_excess"
    rows = {
        name: values,
        f"{name}_low": {step: excess - 0.05 for step, excess in values.items()},
        f"{name}_high": {step: excess + 0.03 for step, excess in values.items()},
    }
    return rows | ({f"verdict/{place}/kind": kinds} if kinds else {})


def faces(ax: Axes, marker: str = "o") -> dict[str, list[float]]:
    """Steps of the points that are drawn, by the colour of their face."""
    points = [
        (str(line.get_markerfacecolor()), line.get_xdata().tolist()) for line in drawn(ax, marker=marker)
    ]
    return {face: steps for face, steps in points if steps}


def test_points_are_filled_where_the_verdict_is_rewired() -> None:
    values, kinds = {1: 0.01, 8: 0.10}, {1: 2.0, 8: 3.0}
    figure = draw_rewiring(
        [make_line(BRAIN | rewiring("all", values, kinds) | rewiring("V1", values, kinds))], ["V1"]
    )
    for title in ("Whole brain: excess rewiring", "V1"):
        ax = titled(figure, title)
        assert faces(ax) == {"#0173b2": [8], "white": [1]}
        # one more refit: from .03 less to .05 more than the floor
        assert spans(ax) == [pytest.approx((-0.03, 0.05))]
    (legend,) = figure.legends
    assert "any other verdict" in [text.get_text() for text in legend.get_texts()]


def test_without_verdicts_no_point_is_marked() -> None:
    figure = draw_rewiring([make_line(BRAIN | rewiring("V1", {1: 0.01, 8: 0.10}))], ["V1"])
    assert faces(titled(figure, "V1")) == {"#0173b2": [1, 8]}
    (legend,) = figure.legends
    assert not any("verdict" in text.get_text() for text in legend.get_texts())


def test_a_point_is_filled_only_if_every_seed_is_rewired() -> None:
    seeds = [BRAIN | rewiring("all", {8: 0.1}, {8: kind}) for kind in (3.0, 2.0)]
    assert faces(draw_rewiring([make_line(*seeds)], []).axes[0]) == {"white": [8]}


def test_a_collapsed_backbone_is_crossed_out() -> None:
    collapse = {
        "collapse/all/collapsed": {0: 0.0, 1: 0.0, 8: 1.0},
        "collapse/all/degenerate": {0: 0.0, 1: 0.0, 8: 1.0},
    }
    line = make_line(LEARNING | collapse | rewiring("V1", {1: 0.01, 8: 0.10}, {1: 3.0}))
    figure = draw_rewiring([line], ["V1"])
    assert faces(titled(figure, "V1")) == {"#0173b2": [1]}
    assert faces(titled(figure, "V1"), "X") == {"white": [8]}
    (legend,) = figure.legends
    assert {"clip (collapsed)", "collapsed"} <= {text.get_text() for text in legend.get_texts()}
    assert faces(titled(draw_forgetting([line], ["shapes"]), "Δ_LP shapes"), "X") == {"white": [8]}


def test_loss_of_signal_stands_beside_rewiring() -> None:
    changes = {
        "rewiring/all/r2_change": {1: -0.01, 8: -0.1},
        "rewiring/all/confidence_change": {1: 0.0, 8: -0.2},
    }
    figure = draw_rewiring([make_line(BRAIN | changes | rewiring("all", {1: 0.01, 8: 0.1}))], ["V1"])
    for title, end in (("ΔR²", -0.1), ("Δconfidence", -0.2)):
        (line,) = drawn(titled(figure, title))
        assert line.get_ydata()[-1] == end


def test_alignment_has_the_band_of_one_more_refit() -> None:
    hierarchy = {
        "alignment/all/hierarchy": {0: 0.5, 1: 0.4, 8: 0.1},
        "alignment/all/hierarchy_null_mean": {0: 0.48},
        "alignment/all/hierarchy_null_sd": {0: 0.02},
    }
    figure = draw_alignment([make_line(BRAIN | hierarchy)])
    margin = stats.t.ppf(0.975, 3) * 0.02 * np.sqrt(1 + 1 / 4)  # 4 fits of step 0
    assert spans(titled(figure, "Hierarchy alignment")) == [pytest.approx((0.48 - margin, 0.48 + margin))]
    (line,) = drawn(titled(figure, "Brain R², held-out stimuli"))
    assert line.get_ydata().tolist() == [0.3, 0.3, 0.2]


def test_depths_run_from_the_first_region_down() -> None:
    depths = {
        "selectors/V1/expected_depth": {0: 0.2, 1: 0.3, 8: 0.6},
        "selectors/FFC/expected_depth": {0: 0.8, 1: 0.8, 8: 0.81},
        "verdict/V1/kind": {1: 0.0, 8: 3.0},
        "verdict/FFC/kind": {1: 3.0, 8: 0.0},
    }
    ax = draw_depths([make_line(BRAIN | depths)], ["V1", "FFC"]).axes[0]
    places = {label.get_text(): label.get_position()[1] for label in ax.get_yticklabels()}
    assert places["V1"] > places["FFC"]
    joints = {line.get_ydata()[0]: line for line in drawn(ax)}
    assert joints[places["V1"]].get_xdata().tolist() == [0.2, 0.6]
    assert joints[places["FFC"]].get_xdata().tolist() == [0.8, 0.81]
    assert joints[places["V1"]].get_alpha() > joints[places["FFC"]].get_alpha()


def test_a_single_snapshot_can_be_drawn() -> None:
    run = {name: {0: 0.3} for name in ("brain/all/r2", "task/digits/accuracy", "selectors/V1/expected_depth")}
    for figure in (
        draw_forgetting([make_line(run)], []),
        draw_alignment([make_line(run)]),
        draw_depths([make_line(run)], ["V1"]),
    ):
        assert embed_png(figure, 20).startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("steps", "ticks"),
    [
        ([0], [0]),
        ([0, 1], [0, 1]),
        ([0, 1, 4, 16, 64, 72], [0, 1, 4, 16, 72]),
        ([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512], [0, 2, 8, 32, 128, 512]),
        ([0, 100, 1000], [0, 100, 1000]),
    ],
)
def test_ticks_keep_apart(steps: list[int], ticks: list[int]) -> None:
    assert choose_ticks(steps) == ticks


def test_a_backbone_keeps_its_colour() -> None:
    two = choose_colours({"clip": True, "supervised": True})
    three = choose_colours({"random": False, "supervised": True, "clip": True})
    assert two == {"clip": "#0173b2", "supervised": "#de8f05"}
    assert three == two | {"random": "#949494"}
    controls = choose_colours({f"random{seed}": False for seed in range(3)})
    assert len(set(controls.values())) == 3


def test_figures_are_parts_of_the_page() -> None:
    pages = [embed_svg(draw_forgetting([make_line(LEARNING)], ["shapes"])) for _ in range(2)]
    assert pages[0] == pages[1]
    head, _, content = pages[0].partition(",")
    assert head == "data:image/svg+xml;base64"
    svg = base64.b64decode(content).decode()
    assert "Δ_LP shapes" in svg
    assert "DejaVu" not in svg


def make_subjects() -> Line:
    """Make two subjects: excess 0.1 and 0.3 at the last step, floors ∓ 0.02 and ∓ 0.04."""
    name = "rewiring/{}/wasserstein_excess"
    values: dict[str, dict[int, float]] = dict(BRAIN)
    for place in ("all", "V1"):
        for label, end, margin in (("subj00", 0.1, 0.02), ("subj01", 0.3, 0.04)):
            own = name.format(f"{place}/{label}")
            values |= {own: {1: 0.0, 8: end}, f"{own}_high": {1: margin, 8: end + margin}}
            values |= {f"{own}_low": {1: -2 * margin, 8: end - 2 * margin}}
            values[f"verdict/{place}/{label}/kind"] = {1: 3.0 if label == "subj00" else 0.0, 8: 3.0}
        mean = name.format(place)
        values |= {mean: {1: 0.0, 8: 0.2}, f"{mean}_subjects_low": {1: -0.1, 8: -1.0}}
        values |= {f"{mean}_subjects_high": {1: 0.1, 8: 1.4}}
    rows = [(metric, step, value) for metric, curve in values.items() for step, value in curve.items()]
    config = load_config(["brain.subjects=[0,1]"])
    run = RunResult(config, Path("run"), pd.DataFrame(rows, columns=["name", "step", "value"]))
    return Line("clip", "#0173b2", "-", (run,))


def test_subjects_are_thin_lines_and_their_interval_is_a_band() -> None:
    line = make_subjects()
    assert line.subjects == ("subj00", "subj01")
    assert line.interval("rewiring/all/wasserstein_excess")["high"].tolist() == [0.1, 1.4]
    assert line.interval("brain/all/r2").empty
    ax = titled(draw_rewiring([line], ["V1"]), "V1")
    ends = sorted((found.get_linewidth(), found.get_ydata()[-1]) for found in drawn(ax))
    assert [end for _, end in ends] == [0.1, 0.3, 0.2]  # the subjects, then the mean, drawn thickest
    # rewired in both subjects
    assert faces(ax) == {"#0173b2": [8], "white": [1]}
    # range of one refit, averaged over subjects
    assert spans(ax) == [pytest.approx((-0.03, 0.06))]
    # the band is drawn whole; the lines set the panel's limits, which clip it
    (band,) = ax.collections
    assert band.get_datalim(ax.transData).ymax == pytest.approx(1.4)
    assert 0.3 < ax.get_ylim()[1] < 0.6


def test_shifts_of_several_subjects_are_judged_in_each() -> None:
    values = BRAIN | {"selectors/V1/expected_depth": {0: 0.2, 8: 0.5}}
    for kind, strong in ((3.0, True), (1.0, False)):
        rows = values | {"verdict/V1/subj00/kind": {8: 3.0}, "verdict/V1/subj01/kind": {8: kind}}
        run = replace(make_run(rows), config=load_config(["brain.subjects=[0,1]"]))
        ax = draw_depths([Line("clip", "#0173b2", "-", (run,))], ["V1"]).axes[0]
        assert (drawn(ax)[0].get_alpha() == 1.0) == strong


def test_drift_is_drawn_from_input_to_output() -> None:
    """Show every layer at the last snapshot; similarity is shown as loss."""
    values = {
        "drift/stem/weight_distance_relative": {0: 0.0, 8: 0.1},
        "drift/blocks.0/weight_distance_relative": {0: 0.0, 8: 0.3},
        "drift/blocks.0/cka_unbiased": {0: 1.0, 8: 0.75},
        "drift/features/cka_unbiased": {0: 1.0, 8: 0.5},
        "drift/stem/grad_norm": {8: 0.0},
        "drift/head/grad_norm": {8: 10.0},
    }
    line = make_line(BRAIN | values)
    assert find_layers(line, "weight_distance_relative") == ["stem", "blocks.0"]
    figure = draw_drift([line])
    (similarity,) = drawn(titled(figure, "1 − CKA, unbiased"), marker="o")
    assert similarity.get_ydata().tolist() == [0.25, 0.5]
    (weights,) = drawn(titled(figure, "Weight distance ‖θ − θ₀‖ / ‖θ₀‖"), marker="o")
    assert weights.get_ydata().tolist() == [0.1, 0.3]
    gradients = titled(figure, "Gradient norm")
    assert gradients.get_yscale() == "log"
    assert drawn(gradients, marker="o")[0].get_ydata().tolist() == [0.0, 10.0]
    still = make_line(BRAIN | {"drift/stem/grad_norm": {8: 0.0}})
    assert titled(draw_drift([still]), "Gradient norm").get_yscale() == "linear"


def test_what_is_between_pretrained_and_fine_tuned_is_drawn_over_alpha() -> None:
    between = BRAIN | {
        "wise_ft.task/digits/accuracy": {0: 0.1, 50: 0.8, 100: 0.9},
        "wise_ft.forgetting/shapes/delta_lp": {0: 0.0, 50: -0.1, 100: -0.4},
        "wise_ft.forgetting/counts/delta_zs": {0: 0.0, 50: -0.2, 100: -0.6},
        "wise_ft.rewiring/all/wasserstein_excess": {50: 0.01, 100: 0.2},
        "wise_ft.rewiring/all/r2_change": {50: -0.01, 100: -0.1},
        "wise_ft.collapse/all/collapsed": {0: 0.0, 50: 0.0, 100: 1.0},
        "wise_ft.brain/all/r2": {0: 0.3, 50: 0.3, 100: 0.2},
    }
    figure = draw_interpolation([make_line(between), make_line(BRAIN, label="without")])
    axes = [ax for ax in figure.axes if ax.axison]
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == [
        *("digits accuracy", "Δ_LP shapes", "Δ_ZS counts"),
        *("Excess rewiring", "R² change", "Brain R²"),
    ]
    for ax, values in zip(axes, ([0.1, 0.8, 0.9], [0, -0.1, -0.4], [0, -0.2, -0.6]), strict=False):
        np.testing.assert_array_equal(ax.lines[0].get_xydata(), np.column_stack([[0, 50, 100], values]))
        assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "0.5", "1"]
    assert axes[1].get_ylim() == axes[2].get_ylim()
    assert faces(axes[3]) == {"#0173b2": [50]}
    assert faces(axes[3], "X") == {"white": [100]}
