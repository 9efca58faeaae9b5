"""Curves from a real store: values, means and formats."""

from __future__ import annotations

import sys
from io import StringIO
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.commands.query import main
from harness.config.compose import load_config
from harness.runs.journal import Journal
from harness.runs.layout import run_folder
from harness.storage.errors import InputError
from harness.tracking.curves import metric_curves
from harness.tracking.mean_curves import mean_curves
from harness.tracking.queries import query
from harness.tracking.store.tracked_run import TrackedRun

# for seed 0; seed 1 is 0.2 higher throughout
EXCESS = {
    "mini_clip": {"V1": (0.0, 0.1), "all": (0.0, 0.3)},
    "mini_random": {"V1": (0.0, 0.5), "all": (0.0, 0.7)},
}


def verdict_rows(backbone: str, seed: int) -> dict[str, float]:
    """V1 of CLIP is rewired in one of two seeds; the untrained control is collapsed."""
    if backbone == "mini_random":
        return {"collapse/all/collapsed": 1.0}
    return {
        "collapse/all/collapsed": 0.0,
        "verdict/V1/kind": 3.0 if seed else 1.0,
        "verdict/V1/p": 0.05,
        "verdict/V4/kind": 2.0,
        "verdict/all/kind": 3.0 if seed else 2.0,
    }


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs_dir = tmp_path_factory.mktemp("study") / "runs"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for backbone, places in EXCESS.items():
            for seed in (0, 1):
                config = load_config(
                    [f"runs_dir={runs_dir}", "study=demo", f"backbone={backbone}", f"seed={seed}"]
                )
                folder = run_folder(config)
                with Journal(folder / "results.jsonl") as journal, TrackedRun(config, folder):
                    for index, step in enumerate((0, 16)):
                        for place, values in places.items():
                            value = values[index] + 0.2 * seed
                            journal.log(step, {f"rewiring/{place}/wasserstein_excess": value})
                            journal.log(step, {f"rewiring/{place}/wasserstein": 9.0})
                        journal.log(step, {"train/loss": 1.0, "forgetting/shapes/delta_lp": -0.5})
                        journal.log(step, {"probe/shapes/n_test": 150 - seed})
                    journal.log(16, verdict_rows(backbone, seed))
                    journal.log(50, {"wise_ft.forgetting/shapes/delta_lp": -0.1})
    return runs_dir


@pytest.fixture(autouse=True)
def _default_store(_own_tracking_store: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")


def test_every_value_is_a_row(runs_dir: Path) -> None:
    curves = metric_curves("rewiring", study="demo", runs_dir=runs_dir)
    assert list(curves.columns) == [
        *("study", "run", "backbone", "objective", "task", "method", "brain", "seed"),
        *("roi", "subject", "measure", "step", "value"),
    ]
    # backbones, seeds, regions, measures, steps
    assert len(curves) == 2 * 2 * 2 * 2 * 2
    one = curves.query(
        "backbone == 'mini_clip' and seed == '1' and roi == 'V1' and measure == 'wasserstein_excess'"
    )
    assert list(one["step"]) == [0, 16]
    np.testing.assert_allclose(one["value"], [0.2, 0.3])
    assert set(one["objective"]) == {"contrastive"}
    assert one["run"].iloc[0].startswith("mini_clip-digits-full-seed1-")


def test_a_metric_without_place_is_of_the_whole(runs_dir: Path) -> None:
    assert set(metric_curves("train", runs_dir=runs_dir)["place"]) == {"all"}
    forgetting = metric_curves("forgetting", runs_dir=runs_dir)
    assert set(forgetting["place"]) == {"shapes"}
    assert set(forgetting["value"]) == {-0.5}


def test_means_are_over_what_is_not_named(runs_dir: Path) -> None:
    table = query("rewiring", ["backbone", "roi"], runs_dir=runs_dir)
    assert list(table.columns) == [
        *("backbone", "roi", "measure", "step", "mean", "std", "n", "counts"),
        *("low", "high", "interval", "p"),
    ]
    expected = [
        value + 0.1 for places in EXCESS.values() for place in ("V1", "all") for value in places[place]
    ]
    np.testing.assert_allclose(table["mean"], expected)
    np.testing.assert_allclose(table["std"], 0.2 / np.sqrt(2))
    assert set(table["n"]) == {2}
    assert set(table["counts"]) == {"2 runs (2 seeds)"}


def test_scores_say_how_many_test_images(runs_dir: Path) -> None:
    table = query("forgetting", runs_dir=runs_dir)
    assert list(table.columns)[-1] == "n_test"
    assert set(table["n_test"]) == {149} and set(table["n"]) == {2}
    assert set(query("forgetting", ["run"], runs_dir=runs_dir)["n_test"]) == {149, 150}
    assert "n_test" not in query("rewiring", runs_dir=runs_dir)


def make_curves() -> pd.DataFrame:
    """Make two seeds and two tasks of two methods, in one brain."""
    rows = [
        {"run": f"{task}-{method}-{seed}", "backbone": "a", "task": task, "method": method, "brain": "x"}
        | {"seed": str(seed), "place": "shapes", "measure": "delta_lp", "step": 8, "value": float(place)}
        for place, (task, method, seed) in enumerate(product("tu", ("full", "lora"), (0, 1)))
    ]
    return pd.DataFrame(rows)


def test_methods_and_brains_are_averaged_only_on_request() -> None:
    curves = make_curves()
    table = mean_curves(curves, ["backbone"])
    assert list(table["method"]) == ["full", "lora"]
    assert list(table["mean"]) == [2.5, 4.5] and list(table["n"]) == [4, 4]
    assert set(table["counts"]) == {"4 runs (2 tasks, 2 seeds)"}
    asked = mean_curves(curves, ["backbone"], over=["method"])
    assert list(asked["mean"]) == [3.5]
    assert list(asked["counts"]) == ["8 runs (2 tasks, 2 methods, 2 seeds)"]
    curves.loc[:3, "brain"] = "y"
    assert len(mean_curves(curves, ["backbone"])) == 4
    # a single brain or method needs no column
    assert "brain" not in table.columns


def test_intervals_and_p_values_are_not_averaged() -> None:
    curves = pd.concat([make_curves().assign(measure=name) for name in ("delta_lp", "delta_lp_low", "w_p")])
    assert set(mean_curves(curves, ["backbone"])["measure"]) == {"delta_lp"}
    by_run = mean_curves(curves, ["run"])
    assert set(by_run["measure"]) == {"delta_lp", "delta_lp_low", "w_p"}
    assert set(by_run["counts"]) == {"1 run"}


def test_without_regions_the_whole_brain_counts(runs_dir: Path) -> None:
    table = query("rewiring", ["backbone"], runs_dir=runs_dir)
    np.testing.assert_allclose(table["mean"], [0.1, 0.4, 0.1, 0.8])
    assert set(table["n"]) == {2}


def test_verdicts_are_also_in_words(runs_dir: Path) -> None:
    table = query("verdict", ["backbone", "roi"], runs_dir=runs_dir)
    assert set(table["measure"]) == {"kind"} and set(table["backbone"]) == {"mini_clip"}
    words = dict(zip(table["roi"], table["verdict"], strict=True))
    assert words == {
        "V1": "rewired 1, loss of signal 1",
        "V4": "reweighted",
        "all": "rewired 1, reweighted 1",
    }
    single = query("verdict", ["seed", "roi"], runs_dir=runs_dir)
    assert list(single[single["roi"] == "V1"]["verdict"]) == ["loss of signal", "rewired"]
    whole = query("verdict", "seed", runs_dir=runs_dir)
    assert list(whole["verdict"]) == ["reweighted", "rewired"]
    p = query("verdict", measure="p", runs_dir=runs_dir)
    assert list(p["mean"]) == [0.05] and "verdict" not in p.columns


def test_curves_are_chosen_by_their_verdict(runs_dir: Path) -> None:
    rewired = query("rewiring", ["seed", "roi"], verdict="rewired", runs_dir=runs_dir)
    assert {*zip(rewired["seed"], rewired["roi"], strict=True)} == {("1", "V1"), ("1", "all")}
    lost = metric_curves("rewiring", verdict="loss of signal", runs_dir=runs_dir)
    assert set(lost["roi"]) == {"V1"} and set(lost["seed"]) == {"0"}
    # a collapse is of the whole run, and so is a metric without regions
    collapsed = metric_curves("rewiring", verdict="collapsed", runs_dir=runs_dir)
    assert set(collapsed["backbone"]) == {"mini_random"} and set(collapsed["roi"]) == {"V1", "all"}
    forgetting = metric_curves("forgetting", verdict="reweighted", runs_dir=runs_dir)
    assert set(forgetting["backbone"]) == {"mini_clip"} and set(forgetting["seed"]) == {"0"}
    with pytest.raises(InputError, match="did you mean 'rewired'"):
        query("rewiring", verdict="rewird", runs_dir=runs_dir)


def test_verdicts_and_measures_can_be_chosen_too(runs_dir: Path) -> None:
    verdicts = query("verdict", ["seed", "roi"], verdict="rewired", runs_dir=runs_dir)
    assert [*zip(verdicts["seed"], verdicts["roi"], strict=True)] == [("1", "V1"), ("1", "all")]
    # no region is unchanged, which is an answer
    assert query("rewiring", verdict="unchanged", runs_dir=runs_dir).empty
    # another measure than the usual one
    chosen = query("rewiring", where="measure=wasserstein,roi=V1", runs_dir=runs_dir)
    assert set(chosen["measure"]) == {"wasserstein"} and set(chosen["mean"]) == {9.0}


def test_measures_are_never_mixed_and_one_value_has_no_spread() -> None:
    curves = pd.DataFrame(
        {"backbone": "a", "place": "shapes", "measure": ["x", "y"], "step": [0, 0], "value": [1.0, 3.0]}
    )
    table = mean_curves(curves, ["backbone"])
    assert list(table["mean"]) == [1.0, 3.0]
    assert table["std"].isna().all()


def test_what_does_not_exist_is_said_in_one_line(runs_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="study 'dmo': expected demo; did you mean 'demo'"):
        metric_curves("rewiring", study="dmo", runs_dir=runs_dir)
    with pytest.raises(InputError, match="did you mean 'wasserstein_excess'"):
        query("rewiring", measure="wasserstein_exces", runs_dir=runs_dir)
    with pytest.raises(InputError, match="did you mean 'backbone'"):
        query("rewiring", ["backbne"], runs_dir=runs_dir)
    with pytest.raises(InputError, match="no such tracking store"):
        query("rewiring", runs_dir=tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_command(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = query("rewiring", runs_dir=runs_dir)
    place = ["--runs-dir", str(runs_dir)]
    monkeypatch.setattr(sys, "argv", ["query", "rewiring", "--by", "backbone,roi", "--format", "csv", *place])
    main()
    printed = capfd.readouterr()
    assert printed.err == ""
    pd.testing.assert_frame_equal(pd.read_csv(StringIO(printed.out)), expected, check_dtype=False)

    output = tmp_path / "table.parquet"
    parquet = ["query", "rewiring", "--format", "parquet", *place]
    monkeypatch.setattr(sys, "argv", [*parquet, "--output", str(output)])
    main()
    assert capfd.readouterr() == ("", "")
    pd.testing.assert_frame_equal(pd.read_parquet(output), expected, check_dtype=False)

    monkeypatch.setattr(sys, "argv", parquet)
    with pytest.raises(InputError, match="format parquet: expected --output"):
        main()
    assert capfd.readouterr().out == ""


def test_curves_of_wise_ft_are_apart(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    between = metric_curves("forgetting", runs_dir=runs_dir, interpolated=True)
    assert set(between["step"]) == {50} and set(between["value"]) == {-0.1} and len(between) == 4
    assert set(metric_curves("forgetting", runs_dir=runs_dir)["value"]) == {-0.5}
    with pytest.raises(InputError, match=r"rewiring of WiSE-FT: found no curve, expected runs measured by"):
        metric_curves("rewiring", runs_dir=runs_dir, interpolated=True, measure="wasserstein_excess")
    monkeypatch.setattr(
        sys, "argv", ["query", "forgetting", "--wise-ft", "--format", "csv", "--runs-dir", str(runs_dir)]
    )
    main()
    printed = pd.read_csv(StringIO(capsys.readouterr().out))
    assert list(printed["backbone"]) == ["mini_clip", "mini_random"]
    assert list(printed["step"]) == [50, 50] and list(printed["n"]) == [2, 2]
