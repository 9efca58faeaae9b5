"""A against B: pairs, differences at equal step and equal learning, notes, and where they are shown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_study import make_brain, write_run

from harness.commands.contrast import main
from harness.config import ContrastConfig, load_config
from harness.reporting import (
    Contrast,
    RunResult,
    contrast_runs,
    format_contrasts,
    read_questions,
    read_runs,
)
from harness.reporting import page as report
from harness.reporting.contrast_text import explain, summarise
from harness.storage import InputError
from harness.tracking import metric_curves, tracking_uri
from harness.tracking.store.connection import connect

STEPS = (0, 10, 20, 40)
QUESTION = ContrastConfig(a="mini_clip", b="mini_supervised")


def make_run(
    overrides: Sequence[str],
    learned: Sequence[float] = (0.2, 0.4, 0.6, 0.8),
    lost: Sequence[float] = (0.0, -0.1, -0.2, -0.3),
    excess: Sequence[float] = (0.01, 0.02, 0.03),
    steps: Sequence[int] = STEPS,
) -> RunResult:
    """Make a finished run of these curves in memory; a probe, one region, and the whole brain."""
    config = load_config(list(overrides))
    task = config.task.name
    curves = {
        f"task/{task}/accuracy": learned,
        f"probe/{task}/linear_accuracy": learned,
        "forgetting/shapes/delta_lp": lost,
        "brain/all/r2": [0.3 - 0.1 * step / 40 for step in steps],
        "selectors/V1/expected_depth": [0.5 + one for one in (0.0, *excess)],
    }
    rows = [
        (name, step, value)
        for name, values in curves.items()
        for step, value in zip(steps, values, strict=True)
    ]
    rows += [
        (f"rewiring/{place}/wasserstein_excess", step, value)
        for place in ("all", "V1")
        for step, value in zip(steps[1:], excess, strict=True)
    ]
    return RunResult(config, Path(" ".join(overrides)), pd.DataFrame(rows, columns=["name", "step", "value"]))


def make_both(more: Sequence[str] = (), a: dict | None = None, b: dict | None = None) -> list[RunResult]:
    """Make a run of each backbone with the same settings."""
    return [
        make_run([f"backbone={name}", *more], **(curves or {}))
        for name, curves in (("mini_clip", a), ("mini_supervised", b))
    ]


def look_up(contrast: Contrast, metric: str, at: str) -> pd.Series:
    table = contrast.table
    (row,) = [row for _, row in table[(table["metric"] == metric) & (table["at"] == at)].iterrows()]
    return row


def test_differences_are_means_over_pairs() -> None:
    runs = []
    for task in ("digits", "textures"):
        for seed in range(3):
            lost = np.array([0.0, -0.1, -0.2, -0.3])
            less = lost * (0.5 if task == "digits" else 0.8) - 0.01 * seed * (lost < 0)
            runs += make_both([f"task={task}", f"seed={seed}"], {"lost": less}, {"lost": lost})
    (contrast,) = contrast_runs(runs, QUESTION)
    assert len(contrast.pairs) == 6 and not contrast.notes and contrast.within == ""
    row = look_up(contrast, "forgetting/shapes/delta_lp", "last snapshot")
    differences = [0.15, 0.14, 0.13, 0.06, 0.05, 0.04]
    assert row["d"] == pytest.approx(np.mean(differences))
    assert (row["a"], row["b"]) == (pytest.approx(-0.3 + np.mean(differences)), pytest.approx(-0.3))
    assert row["n"] == 6 and row["p"] == pytest.approx(2 / 64) and row["p_smallest"] == 2 / 64
    assert row["p_seeds"] == 0.25
    # each task's three values are .01 apart: standard error of the mean .01/√6, four degrees of freedom
    half = 2.776 * 0.01 / np.sqrt(6)
    assert (row["high"] - row["low"]) / 2 == pytest.approx(half, rel=0.1)
    earlier = look_up(contrast, "forgetting/shapes/delta_lp", "step 20")
    assert earlier["d"] == pytest.approx(np.mean([0.1, 0.09, 0.08, 0.04, 0.03, 0.02]))
    assert {"step 10", "step 20", "last snapshot"} < set(contrast.table["at"])


def test_at_equal_learning_a_faster_learner_is_no_worse() -> None:
    """Both lose .3 per unit of accuracy; A learns it in half the steps."""
    fast = {"learned": (0.2, 0.6, 0.8, 0.8), "lost": (0.0, -0.2, -0.3, -0.3)}
    slow = {"learned": (0.2, 0.4, 0.6, 0.8), "lost": (0.0, -0.1, -0.2, -0.3)}
    (contrast,) = contrast_runs(make_both(a=fast, b=slow), QUESTION)
    metric = "forgetting/shapes/delta_lp"
    assert look_up(contrast, metric, "step 10")["d"] == pytest.approx(-0.1)
    for share, lost in ((50, -0.15), (75, -0.225), (90, -0.27)):
        row = look_up(contrast, metric, f"{share} % learned")
        assert (row["a"], row["b"]) == (pytest.approx(lost), pytest.approx(lost))
    # .5 of the way is accuracy .5: at 3/4 of the first ten steps, and half way between 10 and 20
    steps = look_up(contrast, "learning/all/step", "50 % learned")
    assert (steps["a"], steps["b"]) == (pytest.approx(7.5), pytest.approx(15))
    # rewiring is 0 at step 0: 3/4 of .01, and half way between .01 and .02
    moved = look_up(contrast, "rewiring/V1/wasserstein_excess", "50 % learned")
    assert (moved["a"], moved["b"]) == (pytest.approx(0.0075), pytest.approx(0.015))


def test_what_a_run_does_not_reach_is_left_out() -> None:
    runs = make_both(["seed=0"])
    # it starts above the best of the others
    runs += make_both(["seed=1"], a={"learned": (0.85, 0.86, 0.9, 0.9)})
    (contrast,) = contrast_runs(runs, QUESTION)
    metric = "forgetting/shapes/delta_lp"
    assert look_up(contrast, metric, "50 % learned")["n"] == 1
    assert look_up(contrast, metric, "last snapshot")["n"] == 2


def test_it_is_said_where_no_learning_is_equal() -> None:
    (contrast,) = contrast_runs(make_both(a={"learned": (0.85, 0.86, 0.9, 0.9)}), QUESTION)
    assert not contrast.table["at"].str.endswith("learned").any()
    assert "Nothing is compared at equal learning" in explain(contrast)[-1]


def test_changes_since_step_0_are_compared() -> None:
    (contrast,) = contrast_runs(make_both(a={"excess": (0.0, 0.0, 0.1)}), QUESTION)
    depth = look_up(contrast, "selectors/V1/expected_depth", "last snapshot")
    assert (depth["a"], depth["b"], depth["d"]) == pytest.approx((0.1, 0.03, 0.07))
    r2 = look_up(contrast, "brain/all/r2", "last snapshot")
    assert (r2["a"], r2["d"]) == (pytest.approx(-0.1), pytest.approx(0.0))


def test_probes_of_some_tasks_only_have_fewer_pairs() -> None:
    runs = make_both(["seed=0"]) + make_both(["seed=1"])
    for run in runs[:2]:
        more = pd.DataFrame({"name": "forgetting/counts/delta_lp", "step": STEPS, "value": -0.5})
        run.rows.loc[len(run.rows) : len(run.rows) + 3] = None
        run.rows.iloc[-4:] = more.to_numpy()
        run.rows["step"] = run.rows["step"].astype(int)
        run.rows["value"] = run.rows["value"].astype(float)
    (contrast,) = contrast_runs(runs, QUESTION)
    assert look_up(contrast, "forgetting/counts/delta_lp", "last snapshot")["n"] == 1
    mean = look_up(contrast, "forgetting/all/delta_lp", "last snapshot")
    assert mean["n"] == 2 and mean["a"] == pytest.approx((-0.4 - 0.3) / 2)


def test_verdicts_are_shares_of_rewired_runs() -> None:
    runs = make_both()
    codes = iter((3.0, 1.0))
    for run in runs:
        run.rows.loc[len(run.rows)] = ("verdict/V1/kind", 40, next(codes))
    (contrast,) = contrast_runs(runs, QUESTION)
    row = look_up(contrast, "verdict/V1/kind", "last snapshot")
    assert (row["a"], row["b"]) == (1.0, 0.0)


def test_what_else_differs_is_named() -> None:
    runs = make_both() + make_both(["seed=1"])
    other = ["backbone=mini_clip", "seed=2", "brain.n_voxels=300", "backbone.image_size=32"]
    runs += [make_run(other), make_run(["backbone=mini_supervised", "seed=2", "mapping.steps=7"])]
    (contrast,) = contrast_runs(runs, QUESTION)
    notes = "\n".join(contrast.notes)
    assert "also different: brain.n_voxels, 300 against 2000, in 1 of 3 pairs" in notes
    assert "also different: mapping.steps, " in notes and "backbone.image_size, 32 against null" in notes
    # what says which network it is does not count
    assert "objective" not in notes and "checkpoint" not in notes and len(contrast.notes) == 3
    assert notes.partition("\n")[0][1:] in " ".join(format_contrasts([contrast]).split())
    shorter = make_run(["backbone=mini_clip"], *[(0.1, 0.2)] * 2, (0.01,), (0, 10))
    (contrast,) = contrast_runs([shorter, make_both()[1]], QUESTION)
    assert "the last step, 10 against 40" in contrast.notes[-1]
    assert look_up(contrast, "forgetting/shapes/delta_lp", "last snapshot")["b"] == pytest.approx(-0.1)


def test_methods_are_never_mixed() -> None:
    runs = [run for method in ("full", "lora") for run in make_both([f"method={method}"])]
    found = contrast_runs(runs, QUESTION)
    assert [len(contrast.pairs) for contrast in found] == [1, 1]
    assert "method.name=full" in found[0].title and "method.name=lora" in found[1].title
    # and a method may be the factor: then backbones are kept apart
    by_method = contrast_runs(runs, ContrastConfig(factor="method", a="lora", b="full"))
    assert [contrast.factor for contrast in by_method] == ["method.name"] * 2
    assert not any(contrast.notes for contrast in by_method)


def test_a_number_may_be_written_in_other_ways() -> None:
    runs = [make_run([f"finetune.lr={lr}"]) for lr in ("1e-3", "1e-4")]
    (contrast,) = contrast_runs(runs, ContrastConfig(factor="finetune.lr", a="1e-3", b="0.0001"))
    assert len(contrast.pairs) == 1 and not contrast.notes


def test_runs_without_a_partner_are_counted() -> None:
    (contrast,) = contrast_runs([*make_both(), make_run(["backbone=mini_clip", "seed=5"])], QUESTION)
    assert contrast.notes == ("1 run of mini_clip without a partner, left out",)


def test_collapsed_runs_are_named() -> None:
    runs = make_both()
    runs[1].rows.loc[len(runs[1].rows)] = ("collapse/all/collapsed", 40, 1.0)
    (contrast,) = contrast_runs(runs, QUESTION)
    assert contrast.notes == ("1 of 1 runs of mini_supervised collapsed: their rewiring says nothing",)


def test_one_pair_carries_no_p() -> None:
    (contrast,) = contrast_runs(make_both(a={"lost": (0.0, -0.5, -0.5, -0.5)}), QUESTION)
    row = look_up(contrast, "forgetting/shapes/delta_lp", "last snapshot")
    assert np.isnan(row["p"]) and np.isnan(row["p_family"]) and np.isnan(row["low"])
    assert "One pair cannot carry a p" in " ".join(explain(contrast))
    assert summarise(contrast) == "Nothing can be tested with one pair."
    text = format_contrasts([contrast])
    assert "95 %" not in text and "corrected" not in text and max(map(len, text.splitlines())) <= 120
    brief = format_contrasts([contrast], brief=True)
    assert ", V1" in text and ", V1" not in brief
    assert set(brief.splitlines()) < set(text.splitlines()) and "whole brain" in brief


def test_few_pairs_say_what_they_cannot_reach() -> None:
    runs = [run for seed in range(4) for run in make_both([f"seed={seed}"])]
    (contrast,) = contrast_runs(runs, QUESTION)
    assert "The smallest p that sign flips of 4 pairs can reach is 0.12, which is not below 0.05." in explain(
        contrast
    )


def test_what_cannot_be_compared_is_one_line() -> None:
    runs = make_both()
    with pytest.raises(InputError, match=r"unknown setting 'backbon'.*did you mean 'backbone"):
        contrast_runs(runs, ContrastConfig(factor="backbon", a="x", b="y"))
    with pytest.raises(InputError, match="did you mean 'mini_clip'"):
        contrast_runs(runs, ContrastConfig(a="mini_clp", b="mini_supervised"))
    apart = [make_run(["backbone=mini_clip"]), make_run(["backbone=mini_supervised", "seed=1"])]
    with pytest.raises(InputError, match="expected at least one pair"):
        contrast_runs(apart, QUESTION)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for backbone in ("mini_clip", "mini_supervised"):
        base = [f"runs_dir={folder}", "study.name=made", "mapping.floor_refits=2", f"backbone={backbone}"]
        write_run(base, make_brain(2), (0, 8))
    return folder / "made"


def test_the_command_prints_keeps_and_logs(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    arguments = [str(study), "--a", "mini_clip", "--b", "mini_supervised"]
    monkeypatch.setattr(sys, "argv", ["contrast", *arguments])
    main()
    text = capsys.readouterr().out
    assert "mini_clip against mini_supervised" in text and "One pair cannot carry a p" in text
    assert read_questions(study, read_runs(study)) == [QUESTION]
    # asked again without arguments: the same question, kept once
    main([str(study)])
    assert capsys.readouterr().out == text
    main([str(study), "--format", "csv"])
    assert "forgetting/shapes/delta_lp" in capsys.readouterr().out

    client = connect(tracking_uri(study.parent))
    (experiment,) = client.search_experiments(filter_string="name = 'made'")
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.info.run_name == "study made"
    (contrast,) = contrast_runs(read_runs(study), QUESTION)
    row = look_up(contrast, "rewiring/all/wasserstein_excess", "last snapshot")
    name = "contrast-backbone.name-mini_clip-against-mini_supervised"
    key = f"{name}/Rewiring all wasserstein_excess"
    assert logged.data.metrics[key] == pytest.approx(row["d"])
    assert [file.path for file in client.list_artifacts(logged.info.run_id)] == [
        f"{name}.csv",
        f"{name}.json",
    ]
    path = Path(client.download_artifacts(logged.info.run_id, f"{name}.csv"))
    assert len(pd.read_csv(path)) == len(contrast.table)
    # it is no run: queries skip it
    assert metric_curves("rewiring", study="made", runs_dir=study.parent).empty

    monkeypatch.setattr(report, "load_brain", lambda config: make_brain(2))
    page = report.write_report(study).read_text(encoding="utf-8")
    assert "A against B" in page and "One pair cannot carry a p" in page and "Δ_LP shapes" in page
    with pytest.raises(InputError, match="expected --a and --b"):
        main([str(study), "--a", "mini_clip"])


def test_a_question_that_runs_cannot_answer_does_not_stop_a_report(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = ContrastConfig(a="mini_clip", b="nothing")
    monkeypatch.setattr(report, "load_brain", lambda config: make_brain(2))
    monkeypatch.setattr("harness.reporting.contrast.read_questions", lambda study, runs: [question])
    for name in ("pictures.embed_svg", "page.embed_png"):  # the page before has them
        monkeypatch.setattr(f"harness.reporting.{name}", lambda figure, *resolution: "data:image/png;base64,")
    page = report.write_report(study).read_text(encoding="utf-8")
    assert "Not answered: mini_clip against nothing" in page
