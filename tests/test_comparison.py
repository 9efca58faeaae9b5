from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_study import make_brain, write_run

from harness.config.compose import load_config
from harness.measures import (
    Score,
    mean_delta_interval,
    mean_score_interval,
    score_interval,
)
from harness.measures.per_image import Hits
from harness.reporting.columns import (
    describe_column,
    stack,
    write_title,
)
from harness.reporting.comparison import (
    Group,
    choose_score_columns,
    choose_subject_columns,
    columns_of,
    compare_runs,
    group_runs,
)
from harness.reporting.run_results import (
    RunResult,
    read_runs,
    unfinished_runs,
)
from harness.reporting.text_table import format_table
from harness.runs.journal import Journal
from harness.storage.errors import InputError


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write studies: "one" has three backbones, "seeds" three seeds of one backbone, and a variant."""
    folder = tmp_path_factory.mktemp("runs")
    brain = make_brain(2)
    base = [f"runs_dir={folder}", "mapping.floor_refits=2"]
    for backbone in ("mini_random", "mini_supervised", "mini_clip"):
        write_run([*base, "study.name=one", f"backbone={backbone}"], brain, steps=(0, 8))
    for more in (["seed=0"], ["seed=1"], ["seed=2"], ["seed=0", "finetune.lr=1e-2"]):
        write_run([*base, "study.name=seeds", *more], brain, steps=(0, 8))
    (folder / "one" / "begun").mkdir()
    shutil.copy(next((folder / "one").glob("mini_clip*/config.yaml")), folder / "one" / "begun")
    (folder / "one" / "report.html").touch()
    return folder


def look_up(folder: Path, name: str, step: int) -> float:
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    (value,) = [row["value"] for row in rows if (row["name"], row["step"]) == (name, step)]
    return value


def test_only_finished_runs_are_read(studies: Path) -> None:
    runs = read_runs(studies / "one")
    assert [run.config.backbone.name for run in runs] == ["mini_clip", "mini_random", "mini_supervised"]
    assert all(run.steps == [0, 8] for run in runs)
    assert unfinished_runs(studies / "one") == ["begun"]


def test_controls_come_last(studies: Path) -> None:
    backbones = [group.backbone for group in group_runs(read_runs(studies / "one"))]
    assert backbones == ["mini_clip", "mini_supervised", "mini_random"]


def test_every_number_is_in_the_results_by_its_name_and_step(studies: Path) -> None:
    runs = read_runs(studies / "one")
    frame = compare_runs(runs)
    checked = 0
    excess = "rewiring/all/wasserstein_excess"
    for alike, (_, values) in zip(group_runs(runs).values(), frame.iterrows(), strict=True):
        for column in columns_of(frame):
            value = values[column.metric, column.at, "value"]
            if not np.isnan(value):
                step = 0 if column.at == "start" else 8
                assert value == look_up(alike[0].folder, column.metric, step)
                checked += 1
        # the interval of one more refit
        for end in ("low", "high"):
            assert values[excess, "end", end] == look_up(alike[0].folder, f"{excess}_{end}", 8)
    assert checked == 19 * 3 + 2  # Δ_ZS on two probes, for one backbone


def test_columns_of_the_comparison(studies: Path) -> None:
    found = [(column.metric, column.at) for column in columns_of(compare_runs(read_runs(studies / "one")))]
    assert found == [
        ("task/digits/accuracy", "start"),
        ("task/digits/accuracy", "end"),
        ("probe/digits/linear_accuracy", "start"),
        ("probe/digits/linear_accuracy", "end"),
        ("forgetting/shapes/delta_lp", "end"),
        ("forgetting/textures/delta_lp", "end"),
        ("forgetting/counts/delta_lp", "end"),
        ("forgetting/shapes/delta_zs", "end"),
        ("forgetting/textures/delta_zs", "end"),
        ("rewiring/all/wasserstein", "end"),
        ("rewiring/all/wasserstein_null", "end"),
        ("rewiring/all/wasserstein_excess", "end"),
        ("rewiring/all/confidence_change", "end"),
        ("rewiring/all/r2_change", "end"),
        ("alignment/all/hierarchy", "start"),
        ("alignment/all/hierarchy", "end"),
        ("alignment/all/hierarchy_null_sd", "start"),
        ("alignment/all/slope", "start"),
        ("alignment/all/slope", "end"),
        ("brain/all/r2", "start"),
        ("brain/all/r2", "end"),
    ]


@pytest.mark.parametrize(
    ("metric", "above", "heading"),
    [
        ("task/digits/accuracy", "digits: accuracy", "after"),
        ("task/chest/auroc", "chest: AUROC", "after"),
        ("task/<task>/<main>", "<task>: accuracy or AUROC", "after"),
        ("probe/digits/linear_accuracy", "digits: linear probe", "after"),
        ("probe/chest/linear_auroc", "chest: linear probe, AUROC", "after"),
        ("probe/<task>/linear_<main>", "<task>: linear probe, accuracy or AUROC", "after"),
        ("forgetting/shapes/delta_lp", "Δ_LP, linear probe", "shapes"),
        ("forgetting/old/delta_lp_auroc", "Δ_LP, linear probe", "old (AUROC)"),
        ("forgetting/shapes/delta_zs", "Δ_ZS, zero-shot", "shapes"),
        ("sequence/head/average_accuracy", "sequence, head", "ACC"),
        ("sequence/linear/average_auroc", "sequence, linear probe (AUROC)", "average AUROC"),
        ("sequence/zero_shot/backward_transfer", "sequence, zero-shot", "BWT"),
        ("sequence/knn/forward_transfer_auroc", "sequence, nearest neighbours (AUROC)", "FWT"),
        ("rewiring/all/wasserstein", "rewiring, Wasserstein", "raw"),
        ("rewiring/all/wasserstein_null", "rewiring, Wasserstein", "floor"),
        ("rewiring/all/wasserstein_excess", "rewiring, Wasserstein", "excess"),
        ("rewiring/all/wasserstein_excess_low", "rewiring, Wasserstein", "excess, low"),
        ("rewiring/all/r2_change", "change of fit", "ΔR²"),
        ("rewiring/all/confidence_change", "change of fit", "Δconfidence"),
        ("verdict/all/kind", "verdict", "verdict"),
        ("rewiring/all/wasserstein_excess_subjects_p", "rewiring, Wasserstein", "p, subjects"),
        ("rewiring/V1/depth_shift_excess_subjects_p_fdr", "rewiring, depth shift", "p, subjects, FDR"),
        ("alignment/all/hierarchy", "hierarchy alignment", "after"),
        ("alignment/all/hierarchy_null_sd", "hierarchy alignment", "refit sd"),
        ("alignment/all/hierarchy_rois_p", "p of hierarchy alignment", "after"),
        ("alignment/all/slope", "slope of depth on rank", "after"),
        ("brain/all/r2", "brain R²", "after"),
        ("brain/all/r2_subjects_low", "brain R²", "low, subjects"),
    ],
)
def test_headings(metric: str, above: str, heading: str) -> None:
    column = describe_column(metric, "end")
    assert (column.above, column.heading) == (above, heading)
    assert describe_column(metric, "start").heading == ("before" if heading == "after" else heading)


def test_titles_of_panels() -> None:
    assert write_title("task/<task>/<main>") == "Task accuracy or AUROC"
    assert write_title("task/digits/accuracy") == "digits accuracy"
    assert write_title("rewiring/all/wasserstein_excess") == "Excess rewiring"
    assert write_title("brain/all/r2") == "Brain R²"


def test_seeds_are_averaged_and_variants_kept_apart(studies: Path) -> None:
    runs = read_runs(studies / "seeds")
    frame = compare_runs(runs)
    assert list(frame.index) == [
        ("mini_clip", "digits", "full", "finetune.lr=0.0005", 3),
        ("mini_clip", "digits", "full", "finetune.lr=0.01", 1),
    ]
    folders = [run.folder for run in runs if run.config.finetune.lr == 5e-4]
    assert len(folders) == 3
    deltas = [look_up(folder, "forgetting/counts/delta_lp", 8) for folder in folders]
    assert frame["forgetting/counts/delta_lp", "end", "value"].iloc[0] == pytest.approx(np.mean(deltas))
    assert frame["forgetting/counts/delta_lp", "end", "sd"].iloc[0] == pytest.approx(np.std(deltas, ddof=1))
    assert np.isnan(frame["forgetting/counts/delta_lp", "end", "sd"].iloc[1])


def test_scores_have_intervals_over_images_and_seeds(studies: Path) -> None:
    frame = compare_runs(read_runs(studies / "seeds"))
    runs = read_runs(studies / "seeds")
    seeds = [run for run in runs if run.config.finetune.lr == 5e-4]
    for metric in ("task/digits/accuracy", "probe/digits/linear_accuracy"):
        found = list(zip(frame[metric, "end", "low"], frame[metric, "end", "high"], strict=True))
        scores = [run.read_score(metric, 8) for run in runs]
        of_seeds = [
            score for run, score in zip(runs, scores, strict=True) if run in seeds and score is not None
        ]
        assert len(of_seeds) == 3
        assert found[0] == mean_score_interval(of_seeds)
        (alone,) = (score for run, score in zip(runs, scores, strict=True) if run not in seeds)
        assert alone is not None and found[1] == score_interval(alone)
        assert frame[metric, "end", "n_test"].tolist() == [100, 100]
    assert "brackets after accuracies and Δ: 95 % interval over test images and seeds" in format_table(frame)


def test_every_score_of_a_probe_can_be_compared(studies: Path) -> None:
    runs = read_runs(studies / "one")
    columns = choose_score_columns(runs)
    found = [(column.metric, column.at) for column in columns]
    kinds = {"digits": ["knn"], "shapes": ["linear", "knn", "zero_shot"]}
    kinds |= {"textures": kinds["shapes"], "counts": ["linear", "knn"]}
    assert found == [
        (f"probe/{task}/{kind}_accuracy", at)
        for task, names in kinds.items()
        for kind in names
        for at in ("start", "end")
    ]
    frame = compare_runs(runs, columns)
    column = ("probe/counts/knn_accuracy", "end")
    value, low, high = (frame[*column, name].iloc[0] for name in ("value", "low", "high"))
    assert low < value < high
    assert frame[*column, "n_test"].iloc[0] == 100


def test_of_p_values_the_largest_counts() -> None:
    value, sd = describe_column("rewiring/all/wasserstein_excess_subjects_p", "end").summarise(
        [0.01, 0.3, 0.2]
    )
    assert value == 0.3 and np.isnan(sd)


def add_rows(folder: Path, step: int, rows: dict[str, float]) -> None:
    with Journal(folder / "results.jsonl") as journal:
        journal.log(step, rows)


def test_a_verdict_is_a_column_in_words(tmp_path: Path) -> None:
    base = [f"runs_dir={tmp_path}", "study.name=judged", "mapping.floor_refits=2"]
    kinds = {"seed=0": 3.0, "seed=1": 1.0}
    for seed, kind in kinds.items():
        folder = write_run([*base, seed], make_brain(2), steps=(0, 8))
        add_rows(folder, 8, {"verdict/all/kind": kind, "verdict/V1/kind": kind, "verdict/V2/kind": 0.0})
    broken = write_run([*base, "backbone=mini_random"], make_brain(2), steps=(0, 8))
    add_rows(broken, 8, {"collapse/all/collapsed": 1.0, "collapse/all/probe_fell": 1.0})
    write_run([*base, "backbone=mini_supervised"], make_brain(2), steps=(0, 8))
    runs = read_runs(tmp_path / "judged")
    assert [run.collapsed for run in runs] == [False, False, True, False]
    frame = compare_runs(runs)
    cells = dict(
        zip(
            frame.index.get_level_values("backbone"),
            frame["verdict/all/kind", "end", "value"],
            strict=True,
        )
    )
    assert cells == {
        "mini_clip": "rewired: V1 1/2",
        "mini_supervised": "",
        "mini_random": "collapsed, no verdict",
    }
    text = format_table(frame)
    assert "rewired: V1 1/2" in text and "collapsed, no verdict" in text
    assert max(map(len, text.splitlines())) <= 120


def test_options_are_told_apart_by_name_and_not_by_settings_only_one_has() -> None:
    mappings = ["mapping=factortopy", "mapping=layer_ridge", "mapping=attention"]
    runs = [
        RunResult(load_config(["brain.n_voxels=200", mapping]), Path(mapping), pd.DataFrame())
        for mapping in mappings
    ]
    assert [group.variant for group in group_runs(runs)] == [
        "mapping.family=factortopy, mapping.lr=0.01, mapping.token_size=8",
        "mapping.family=layer_ridge, mapping.token_size=8",
        "mapping.family=attention, mapping.lr=0.005, mapping.token_size=4",
    ]


def test_labels_say_what_differs() -> None:
    one = Group("clip", "digits", "full", "")
    assert one.label([one, Group("other", "digits", "full", "")]) == "clip"
    assert one.label([one, Group("clip", "digits", "lora", "")]) == "clip, full"
    rank = Group("clip", "digits", "lora", "method.rank=4")
    assert rank.label([rank]) == "clip, method.rank=4"


@pytest.mark.parametrize(
    ("metric", "value", "sd", "text"),
    [
        ("task/digits/accuracy", 0.9544, float("nan"), "0.954"),
        ("task/digits/accuracy", 0.9544, 0.01, "0.954 ±0.010"),
        ("forgetting/shapes/delta_lp", -0.1004, float("nan"), "−0.100"),
        ("forgetting/shapes/delta_lp", 0.1, float("nan"), "+0.100"),
        ("forgetting/shapes/delta_lp", -0.0001, float("nan"), "0.000"),
        ("rewiring/all/wasserstein_excess_subjects_p", 0.00099, float("nan"), "<.001"),
        ("rewiring/all/wasserstein_excess_subjects_p", 0.0101, float("nan"), "0.010"),
        ("brain/all/r2", float("nan"), float("nan"), "–"),
    ],
)
def test_numbers_are_written(metric: str, value: float, sd: float, text: str) -> None:
    assert describe_column(metric, "end").write(value, sd) == text


@pytest.mark.parametrize("study", ["one", "seeds"])
def test_table_fits_a_terminal(studies: Path, study: str) -> None:
    frame = compare_runs(read_runs(studies / study))
    text = format_table(frame)
    assert max(map(len, text.splitlines())) <= 120
    for label in ("mini_clip", "digits: accuracy", "Δ_LP", "excess", "hierarchy alignment", "brain R²"):
        assert label in text
    for column in columns_of(frame):
        values = frame[column.metric, column.at, "value"]
        assert all(column.write(value) in text for value in values)
    if study == "seeds":
        assert "(3 seeds)" in text


@pytest.mark.parametrize(
    ("widths", "tables"),
    [([3, 3, 3], [[0, 1], [2]]), ([9, 1, 1], [[0], [1, 2]]), ([1, 9, 1], [[0], [1], [2]]), ([], [])],
)
def test_tables_hold_what_there_is_room_for(widths: list[int], tables: list[list[int]]) -> None:
    assert stack(widths, 6) == tables


def test_columns_of_a_table_are_aligned(studies: Path) -> None:
    first = format_table(compare_runs(read_runs(studies / "one"))).split("\n\n")[0].splitlines()
    assert len(first) == 2 + 3
    place = first[1].index("before") + len("before")
    assert all(line[:place][-1] == "]" and line[place] == " " for line in first[2:])


def test_a_run_without_zero_shot_has_no_such_columns(studies: Path) -> None:
    runs = [run for run in read_runs(studies / "one") if run.config.backbone.name != "mini_clip"]
    assert not any("delta_zs" in column.metric for column in columns_of(compare_runs(runs)))


def test_several_tasks_share_a_column(studies: Path, tmp_path: Path) -> None:
    runs = read_runs(studies / "one")[:2]
    folder = tmp_path / "other"
    shutil.copytree(runs[0].folder, folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("digits", "letters"))
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    # without check sums, as an earlier version wrote them
    renamed = [row | {"name": row["name"].replace("digits", "letters")} for row in rows]
    kept = [{name: value for name, value in row.items() if name != "crc"} for row in renamed]
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    frame = compare_runs([*read_runs(tmp_path), runs[1]])
    assert list(frame.index.get_level_values("task")) == ["letters", "digits"]
    assert not frame["task/<task>/accuracy", "end", "value"].isna().any()
    assert "mini_clip, letters" in format_table(frame)


def test_one_snapshot_has_no_rewiring(tmp_path: Path) -> None:
    write_run(["study.name=still", f"runs_dir={tmp_path}"], make_brain(1), steps=(0,))
    frame = compare_runs(read_runs(tmp_path / "still"))
    assert not any(column.metric.startswith("rewiring/") for column in columns_of(frame))
    assert (frame["forgetting/shapes/delta_lp", "end", "value"] == 0).all()
    assert "0.000" in format_table(frame)


def test_what_cannot_be_read_is_named(studies: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown study .*'ones'.*did you mean 'one'"):
        read_runs(studies / "ones")
    with pytest.raises(InputError, match="no such folder"):
        read_runs(tmp_path / "no" / "where")
    with pytest.raises(InputError, match=r"no finished run .0 unfinished"):
        read_runs(tmp_path)
    broken = tmp_path / "study" / "run"
    shutil.copytree(next((studies / "one").glob("mini_clip*")), broken)
    (broken / "results.jsonl").write_text("")
    with pytest.raises(InputError, match=r"results\.jsonl: found no brain/all/r2"):
        read_runs(tmp_path / "study")
    (broken / "config.yaml").unlink()
    with pytest.raises(InputError, match=r"config\.yaml: no such file"):
        read_runs(tmp_path / "study")


def test_rows_are_all_there(studies: Path) -> None:
    run = read_runs(studies / "one")[0]
    assert list(run.rows.columns) == ["name", "step", "value"]
    assert len(run.rows) == len((run.folder / "results.jsonl").read_text().splitlines())
    assert list(run.curve("brain/all/r2").index) == [0, 8]
    assert run.curve("no/such/metric").empty


def test_several_subjects_are_compared_by_their_mean(tmp_path: Path) -> None:
    base = [f"runs_dir={tmp_path}", "study.name=two", "mapping.floor_refits=2", "brain.subjects=[0,1]"]
    folder = write_run(base, make_brain(2), steps=(0, 8))
    runs = read_runs(tmp_path / "two")
    assert runs[0].subjects == ("subj00", "subj01")
    frame = compare_runs(runs)
    excess = "rewiring/all/wasserstein_excess"
    own = [look_up(folder, f"rewiring/all/{label}/wasserstein_excess", 8) for label in runs[0].subjects]
    assert frame[excess, "end", "value"].iloc[0] == pytest.approx(np.mean(own))
    for end in ("low", "high"):
        assert frame[excess, "end", end].iloc[0] == look_up(folder, f"{excess}_subjects_{end}", 8)
    # of the backbone alone: over test images
    wilson = score_interval(Score(Hits(np.arange(100) < 95)))
    assert wilson == tuple(frame["task/digits/accuracy", "end", end].iloc[0] for end in ("low", "high"))
    metrics = [column.metric for column in columns_of(frame)]
    assert f"{excess}_subjects_p" in metrics
    own_metrics = [column.metric for column in choose_subject_columns(runs)]
    assert excess in own_metrics and f"{excess}_subjects_p" not in own_metrics
    text = format_table(frame)
    assert "p, subjects" in text and max(map(len, text.splitlines())) <= 120
    column = describe_column(excess, "end")
    low, high = (frame[excess, "end", end].iloc[0] for end in ("low", "high"))
    assert f"{column.write(np.mean(own))} {column.write_interval(low, high)}" in text


def test_one_subject_and_several_are_variants(tmp_path: Path) -> None:
    runs = [
        RunResult(load_config(overrides), Path(str(overrides)), pd.DataFrame())
        for overrides in ([], ["seed=1"], ["brain.subjects=[0,1]"], ["brain.subjects=[0]"])
    ]
    variants = {group.variant: len(alike) for group, alike in group_runs(runs).items()}
    assert variants == {"brain.subjects=null": 3, "brain.subjects=[0, 1]": 1}


def test_changes_have_intervals_over_test_images(studies: Path) -> None:
    runs = [run for run in read_runs(studies / "one") if run.config.backbone.name == "mini_clip"]
    frame = compare_runs(runs)
    metric = "forgetting/counts/delta_lp"
    for end in ("low", "high"):
        expected = look_up(runs[0].folder, f"{metric}_{end}", 8)
        assert frame[metric, "end", end].iloc[0] == expected
    assert frame[metric, "end", "low"].iloc[0] < frame[metric, "end", "value"].iloc[0]
    # at step 0, nothing has changed
    assert look_up(runs[0].folder, f"{metric}_low", 0) == look_up(runs[0].folder, f"{metric}_high", 0) == 0
    text = format_table(frame)
    column = describe_column(metric, "end")
    low, high = (frame[metric, "end", end].iloc[0] for end in ("low", "high"))
    assert column.write_interval(low, high) in text
    assert "accuracies and Δ: 95 % interval over test images (Wilson; paired bootstrap)" in text


def test_changes_of_several_seeds_have_intervals_over_seeds_too(studies: Path) -> None:
    runs = read_runs(studies / "seeds")
    frame = compare_runs(runs)
    metric = "forgetting/counts/delta_lp"
    changes = [run.read_change(metric, "end") for run in runs if run.config.finetune.lr == 5e-4]
    assert len(changes) == 3
    found = [frame[metric, "end", end].iloc[0] for end in ("low", "high")]
    assert found == list(mean_delta_interval(changes))
    assert "interval over test images and seeds" in format_table(frame)


def test_headings_say_how_many_test_images(studies: Path) -> None:
    frame = compare_runs(read_runs(studies / "one"))
    assert (frame["forgetting/counts/delta_lp", "end", "n_test"] == 100).all()
    assert frame["brain/all/r2", "end", "n_test"].isna().all()
    columns = {(column.metric, column.at): column for column in columns_of(frame)}
    assert columns["forgetting/counts/delta_lp", "end"].heading == "counts, n 100"
    assert columns["probe/digits/linear_accuracy", "end"].above == "digits: linear probe, n 100"
    assert describe_column("task/a/accuracy", "end").with_images([80.0, 90.0]).above == "a: accuracy, n 80–90"
    assert "counts, n 100" in format_table(frame) and "n: test images" in format_table(frame)


def test_runs_without_records_of_images_have_no_intervals(studies: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old" / "run"
    shutil.copytree(next((studies / "one").glob("mini_clip*")), folder)
    shutil.rmtree(folder / "probes")
    rows = (folder / "results.jsonl").read_text().splitlines(keepends=True)
    old = [row for row in rows if not re.search(r"n_test|delta_\w+_(low|high)", row)]
    (folder / "results.jsonl").write_text("".join(old))
    frame = compare_runs(read_runs(tmp_path / "old"))
    assert np.isnan(frame["forgetting/counts/delta_lp", "end", "low"].iloc[0])
    assert "test images" not in format_table(frame)
