"""Figures of the report: what their legends say, which axes they share, and that nothing empty is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness.config.compose import load_config
from harness.plot.style import WIDTH
from harness.reporting.figures.curves import (
    draw_alignment,
    draw_forgetting,
    draw_rewiring,
)
from harness.reporting.figures.depths import draw_depths
from harness.reporting.figures.drift import draw_drift
from harness.reporting.figures.geometry import draw_geometry, have_geometry
from harness.reporting.figures.layers import draw_layers
from harness.reporting.figures.legends import count_columns
from harness.reporting.figures.panels import Line
from harness.reporting.missing import list_missing
from harness.reporting.page import choose_lines
from harness.reporting.run_results import RunResult

Rows = dict[str, dict[int, float]]

BRAIN: Rows = {"brain/all/r2": {0: 0.3, 1: 0.3, 8: 0.2}}
LEARNING: Rows = BRAIN | {
    "task/digits/accuracy": {0: 0.1, 1: 0.4, 8: 0.9},
    "forgetting/shapes/delta_lp": {0: 0.0, 1: -0.1, 8: -0.3},
}


def make_run(rows: Rows, *overrides: str) -> RunResult:
    found = [(name, step, value) for name, curve in rows.items() for step, value in curve.items()]
    frame = pd.DataFrame(found, columns=["name", "step", "value"])
    return RunResult(load_config(["mapping.floor_refits=3", *overrides]), Path("run"), frame)


def make_line(*runs: Rows, label: str = "clip", colour: str = "#0173b2") -> Line:
    return Line(label, colour, "-", tuple(make_run(run) for run in runs))


def entries(figure: Figure) -> dict[str, Line2D | Patch]:
    (legend,) = figure.legends
    return {
        text.get_text(): handle
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }


def filled(figure: Figure) -> list[Axes]:
    """Panels that are shown."""
    return [ax for ax in figure.axes if ax.axison]


def has_data(ax: Axes) -> bool:
    return bool(
        ax.collections or ax.images or any(len(line.get_xdata()) and line.get_marker() for line in ax.lines)
    )


def test_every_line_of_a_study_looks_different() -> None:
    methods = ("full", "lora", "linear_probe", "bitfit", "lwf", "ldifs", "l2_sp")
    runs = [
        replace(
            make_run(LEARNING, f"backbone={backbone}", f"method={method}"),
            folder=Path(f"{backbone}-{method}"),
        )
        for backbone in ("mini_clip", "mini_supervised")
        for method in methods
    ]
    lines = choose_lines(runs)
    assert len({(line.colour, line.dash, line.marker) for line in lines}) == len(lines) == 14
    # a colour stands for a backbone, a dash with its marker for a method
    assert len({(line.colour, line.backbone) for line in lines}) == 2
    assert len({(line.dash, line.marker, line.variant) for line in lines}) == len(methods)


def test_a_legend_tells_colours_from_dashes() -> None:
    runs = [
        replace(
            make_run(LEARNING, f"backbone={backbone}", f"method={method}"),
            folder=Path(f"{backbone}-{method}"),
        )
        for backbone in ("mini_clip", "mini_supervised")
        for method in ("full", "lora")
    ]
    lines = choose_lines(runs)
    found = entries(draw_forgetting(lines, ["shapes"]))
    assert list(found) == ["mini_clip", "mini_supervised", "method full", "method lora"]
    for line in lines:
        assert to_hex(found[line.backbone].get_color()) == line.colour
        style = found[line.variant]
        assert style.get_marker() == line.marker
        assert to_hex(style.get_color()) not in {each.colour for each in lines}
    assert found["method full"].get_linestyle() != found["method lora"].get_linestyle()


def test_a_legend_stays_within_the_page() -> None:
    labels = [f"a backbone of a long name, and a method {number}" for number in range(10)]
    lines = [Line(label, "#0173b2", "-", (make_run(LEARNING),)) for label in labels]
    figure = draw_forgetting(lines, ["shapes"])
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= WIDTH * figure.dpi
    assert count_columns(labels) < count_columns(["short"] * 10) == 10


@pytest.mark.parametrize("case", ["images", "seeds", "subjects", "nothing"])
def test_a_legend_says_what_bands_are(case: str) -> None:
    interval = {f"forgetting/shapes/delta_lp_{end}": {0: 0.0, 1: -0.2, 8: -0.4} for end in ("low", "high")}
    over = {f"rewiring/all/wasserstein_excess_subjects_{end}": {1: 0.0, 8: 0.2} for end in ("low", "high")}
    excess = {"rewiring/all/wasserstein_excess": {1: 0.01, 8: 0.1}}
    figure = {
        "images": lambda: draw_forgetting([make_line(LEARNING | interval)], ["shapes"]),
        "seeds": lambda: draw_forgetting(
            [make_line(LEARNING, LEARNING | {"task/digits/accuracy": {0: 0.1, 1: 0.5, 8: 0.8}})], ["shapes"]
        ),
        "subjects": lambda: draw_rewiring([make_line(BRAIN | excess | over)], []),
        "nothing": lambda: draw_forgetting([make_line(LEARNING)], ["shapes"]),
    }[case]()
    bands = {
        "images": {"95 % interval over test images"},
        "seeds": {"± 1 sd over seeds"},
        "subjects": {"95 % interval over subjects"},
        "nothing": set(),
    }[case]
    assert set(entries(figure)) == {"clip"} | bands


def test_small_shifts_of_depth_have_an_axis_that_shows_them() -> None:
    def rows(shift: float) -> Rows:
        name = "rewiring/V1/depth_shift"
        return BRAIN | {
            "selectors/V1/expected_depth": {0: 0.5, 8: 0.5 + shift},
            name: {8: shift},
            f"{name}_excess": {8: shift},
            # one more refit: from 0.006 below to 0.004 above
            f"{name}_excess_low": {8: shift - 0.004},
            f"{name}_excess_high": {8: shift + 0.006},
        }

    figure = draw_depths([make_line(rows(0.02)), make_line(rows(0.04), label="other")], ["V1"])
    depths, shifts, _, others = figure.axes
    assert depths.get_xlim() == (-0.02, 1.02)
    assert shifts.get_xlim() == others.get_xlim() == pytest.approx((-0.044, 0.044))
    assert "zoomed: ±0.044" in shifts.get_xlabel()
    (point,) = [line for line in shifts.lines if line.get_marker() == "o"]
    assert list(point.get_xdata()) == [0.02]
    (bar,) = shifts.patches
    assert (bar.get_x(), bar.get_x() + bar.get_width()) == pytest.approx((-0.006, 0.004))
    assert "one more refit of step 0, 95 %" in entries(figure)
    # a line that moved a hundred times less is not flattened, and its panel says that its axis differs
    figure = draw_depths([make_line(rows(0.004)), make_line(rows(0.4), label="other")], ["V1"])
    _, small, _, large = figure.axes
    assert small.get_xlim()[1] < 0.01 < 0.4 < large.get_xlim()[1]
    assert "own axis" in small.get_title(loc="left") and large.get_title(loc="left") == ""


def test_depths_without_a_later_snapshot_have_no_shift() -> None:
    figure = draw_depths(
        [make_line({"brain/all/r2": {0: 0.3}, "selectors/V1/expected_depth": {0: 0.5}})], ["V1", "V2"]
    )
    (ax,) = filled(figure)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["V1"]
    assert list(entries(figure)) == ["step 0"]


def test_layers_of_all_runs_share_the_axis_of_steps() -> None:
    def rows(last: int) -> Rows:
        names = [f"selectors/{place}/layer/{layer}" for place in ("all", "V1") for layer in ("a", "b")]
        return {"brain/all/r2": {0: 0.3, 2: 0.3, last: 0.2}} | {
            name: {0: 0.5, 2: 0.5, last: 0.5} for name in names
        }

    lines = [make_line(rows(10)), make_line(rows(100), label="longer")]
    figure = draw_layers(lines, ["V1"], {})
    stacked = [ax for ax in figure.axes if ax.collections]
    assert len(stacked) == 4
    assert {ax.get_xlim() for ax in stacked} == {(0, 100)}


def test_shares_of_one_snapshot_are_a_bar() -> None:
    rows: Rows = {"brain/all/r2": {0: 0.3}} | {
        f"selectors/all/layer/{layer}": {0: 0.5} for layer in ("a", "b")
    }
    figure = draw_layers([make_line(rows)], [], {})
    (ax,) = [ax for ax in figure.axes if ax.collections]
    box = ax.collections[0].get_datalim(ax.transData)
    assert (box.x0, box.x1, box.y0, box.y1) == (0, 1, 0, 0.5)
    assert ax.get_xlim() == (0, 1)


def test_geometry_marks_the_layers_that_rsa_and_selectors_prefer() -> None:
    rows: Rows = BRAIN | {"rsa/all/layers_agreement": {0: 0.5, 8: -0.25}, "rsa/V1/noise_ceiling": {0: 0.5}}
    for layer, (rsa, share) in {"a": (0.1, 0.7), "b": (0.3, 0.2), "c": (0.2, 0.1)}.items():
        rows[f"rsa/V1/layer/{layer}"] = {0: rsa, 8: 0.4 - rsa}
        rows |= {f"selectors/{place}/layer/{layer}": {0: share, 8: share} for place in ("all", "V1")}
    line = make_line(rows)
    assert have_geometry([line, make_line(BRAIN)], ["V1"]) == [line]
    first, last = (ax for ax in filled(draw_geometry([line], ["V1"])) if ax.images and ax.lines)
    # divided by the ceiling of step 0
    assert first.images[0].get_array().tolist() == [pytest.approx([0.2, 0.6, 0.4])]
    assert last.images[0].get_array().tolist() == [pytest.approx([0.6, 0.2, 0.4])]
    assert [[float(mark.get_xdata()[0]) for mark in ax.lines] for ax in (first, last)] == [[1, 0], [0, 0]]
    assert (first.get_title("right"), last.get_title("right")) == ("agreement 0.50", "agreement -0.25")
    assert last.get_title("left").endswith("step 8")


def test_nothing_is_drawn_without_data() -> None:
    excess = {f"rewiring/{place}/wasserstein_excess": {1: 0.01, 8: 0.1} for place in ("all", "V1")}
    line = make_line(LEARNING | excess | {"drift/stem/weight_distance_relative": {0: 0.0, 8: 0.1}})
    figures = {
        "rewiring": draw_rewiring([line], ["V1", "V2"]),
        "forgetting": draw_forgetting([line], ["shapes", "counts"]),
        "drift": draw_drift([line]),
        "alignment": draw_alignment([line]),
    }
    titles = {
        "rewiring": ["Whole brain: excess rewiring", "V1"],
        "forgetting": ["Task accuracy, head", "Δ_LP shapes"],
        "drift": ["Weight distance ‖θ − θ₀‖ / ‖θ₀‖"],
        "alignment": ["Brain R², held-out stimuli"],
    }
    for name, figure in figures.items():
        assert [ax.get_title(loc="left") for ax in filled(figure)] == titles[name]
        assert all(has_data(ax) for ax in filled(figure))
        # neither a floor nor refits were recorded
        assert list(entries(figure)) == ["clip"]


def test_what_is_missing_is_said_with_its_reason() -> None:
    whole = {f"selectors/V1/layer/{layer}": {0: 0.5, 1: 0.5, 8: 0.5} for layer in ("a", "b")}
    whole |= {f"selectors/all/layer/{layer}": {0: 0.5, 1: 0.5, 8: 0.5} for layer in ("a", "b")}
    whole |= {"rewiring/V1/wasserstein": {1: 0.1, 8: 0.1}, "alignment/all/hierarchy": {0: 0.5, 8: 0.4}}
    judged = make_line(LEARNING | whole | {"verdict/all/kind": {8: 3.0}, "verdict/V1/kind": {8: 3.0}})
    assert list_missing([judged], ["shapes"], ["V1"]) == []
    collapse = {"collapse/all/collapsed": {8: 1.0}, "collapse/all/probe_fell": {8: 1.0}}
    broken = make_line(LEARNING | whole | collapse, label="broken")
    (line,) = list_missing([judged, broken], ["shapes"], ["V1"])
    assert line.startswith("broken: no verdict at the last snapshot, as the backbone has collapsed")
    (line,) = list_missing([judged, make_line(LEARNING | whole, label="old")], ["shapes"], ["V1"])
    assert line.startswith("old: no verdict, as there is no evidence per layer.")
    (line,) = list_missing([judged], ["shapes"], ["V1", "V2"])
    assert line.startswith("clip: V2 has fewer than 5 predicted voxels")
    bare = list_missing([make_line({"brain/all/r2": {0: 0.3}})], [], [])
    assert [text.split(":")[0] for text in bare] == ["clip", "Forgetting", "Order of layers"]
    assert "no snapshot after step 0" in bare[0]


def test_a_floor_of_one_region_does_not_flatten_the_others() -> None:
    def rows(place: str, floor: float) -> Rows:
        name = f"rewiring/{place}/wasserstein_excess"
        return {
            name: {1: 0.01, 8: 0.1},
            f"{name}_low": {1: 0.0, 8: 0.1 - floor},
            f"{name}_high": {1: 0.1, 8: 0.1 + floor},
        }

    places = ["V1", "V2", "V3"]
    floors = [BRAIN | rows("all", 0.02)] + [rows(place, 0.02 if place != "V2" else 3.0) for place in places]
    line = make_line({name: curve for each in floors for name, curve in each.items()})
    figure = draw_rewiring([line], places)
    limits = {ax.get_ylim() for ax in filled(figure)}
    assert len(limits) == 1
    ((low, high),) = limits
    assert low < -0.02 and 0.1 < high < 0.3
