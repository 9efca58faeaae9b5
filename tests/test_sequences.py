"""Sequences of tasks in one run: settings, training, measures, and errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import made_training
import numpy as np
import pytest
import torch
from catalogued import check_rows
from made_backbones import make_tiny_clip
from made_training import SMALL, interrupted, load_once, values
from overrides import SMALL_TRACKING, TINY

from harness.commands.finetune import run
from harness.config.compose import (
    flatten,
    load_config,
    read_config,
    to_yaml,
)
from harness.config.method import (
    FlypConfig,
    FullConfig,
    LpFtConfig,
)
from harness.config.task import (
    SequenceConfig,
    tasks_in_order,
)
from harness.finetuning.batch_plans import (
    last_steps,
    plan_sequence,
)
from harness.finetuning.devices import build_accelerator
from harness.finetuning.methods.stages import TrainingStage
from harness.finetuning.methods.tuned import tune
from harness.finetuning.schedule import (
    chain_stages,
)
from harness.finetuning.snapshot_steps import sequence_steps
from harness.finetuning.snapshots import (
    read_backbone,
    read_manifest,
)
from harness.measures.sequences import name_sequence
from harness.reporting.comparison import compare_runs
from harness.reporting.figures.curves import draw_forgetting
from harness.reporting.figures.sequences import (
    draw_matrices,
    read_matrix,
)
from harness.reporting.figures.stability import draw_gaps
from harness.reporting.page import (
    choose_lines,
    write_report,
)
from harness.reporting.run_results import read_runs
from harness.reporting.text_table import format_table
from harness.runs.inputs import load_inputs
from harness.runs.layout import (
    list_snapshots,
    run_folder,
    run_name,
    snapshot_folder,
)
from harness.storage.errors import InputError
from harness.storage.files import (
    read_json,
    read_weights,
)
from harness.studies.costs import (
    count_images_seen,
    plan_steps,
)
from harness.studies.grid import expand_grid
from harness.studies.plan import (
    count_trained,
    describe_network,
)
from harness.tracking import wise_ft
from harness.tracking.curves import metric_curves

BOTH = "task=[digits,textures]"


# --- settings


def test_a_list_of_tasks_is_a_sequence_and_what_is_set_holds_for_each(tmp_path: Path) -> None:
    config = load_config([BOTH, "task.n_train=50", "task.image_size=32"])
    assert isinstance(config.task, SequenceConfig)
    sizes = [(task.name, task.n_train) for task in tasks_in_order(config.task)]
    assert sizes == [("digits", 50), ("textures", 50)]
    assert run_name(config).startswith("mini_clip-digits+textures-full-seed0-")
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert read_config(tmp_path / "config.yaml") == config
    assert flatten(config)["task.tasks.textures.n_train"] == "50"
    # the order is part of a run's identity
    assert run_name(load_config(["task=[textures,digits]"])) != run_name(load_config([BOTH]))


def test_a_list_of_one_task_is_that_task() -> None:
    assert load_config(["task=[textures]"]) == load_config(["task=textures"])


def test_a_long_sequence_has_a_name_that_files_can_have() -> None:
    config = load_config([BOTH]).task
    tasks = [config.tasks[0].model_copy(update={"name": f"{place}{'x' * 50}"}) for place in range(9)]
    assert SequenceConfig(tasks=tuple(tasks)).name == f"0{'x' * 50}+8more"


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["task=[digits,texturs]"], r"unknown task 'texturs'.*did you mean 'textures'\?"),
        (["task=[digits,textures,digits]"], "task: found digits 2 times, expected each task once"),
        (["task=[]"], r"task: found \[\], expected one or more tasks, such as task=\[digits,textures\]"),
        (["task=digits,textures"], r"for a sequence of tasks: task=\[digits,textures\]"),
        ([BOTH, "task.name=mine"], "task: found mine 2 times"),
        (
            [BOTH, "task.n_train=0"],
            r"task.n_train: found 0, .* \(task digits of a sequence: .* all its tasks",
        ),
        (
            ["task=[digits,eurosat]", "task.image_size=32"],
            r"task.image_size: not a setting of the chosen task \(task eurosat of a sequence",
        ),
        ([BOTH, "task.digits.n_train=9"], r"unknown setting 'task.digits'.*file in a task folder sets one"),
        ([BOTH, "seed=-1"], "^seed: found -1, expected greater than or equal to 0$"),
    ],
)
def test_what_cannot_be_a_sequence_is_said(overrides: list[str], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        load_config(overrides)


def test_in_a_grid_a_sequence_is_one_value_of_the_axis() -> None:
    grid = "study.grid={task: [digits, [digits, textures], {task: [textures, digits], finetune.lr: 0.1}]}"
    found = [(config.task.name, config.finetune.lr) for _, config in expand_grid([grid])]
    assert found == [("digits", 5e-4), ("digits+textures", 5e-4), ("textures+digits", 0.1)]
    # the command line wins, however the list is spelt, and settings tied to the value are kept
    ((_, config),) = expand_grid([grid, "task=[textures,digits]"])
    assert (config.task.name, config.finetune.lr) == ("textures+digits", 0.1)
    left = [config.task.name for _, config in expand_grid([grid, "study.leave_out=[[digits,textures]]"])]
    assert left == ["digits", "textures+digits"]
    with pytest.raises(InputError, match="unknown task 'texturs'"):
        load_config(["study.grid={task: [[digits, texturs]]}"])


def test_probes_that_are_trained_on_are_none(tmp_path: Path) -> None:
    overrides = [*TINY, *SMALL_TRACKING, BOTH, "probes.tasks=[textures,shapes]"]
    inputs = load_inputs(load_config(overrides), tmp_path)
    assert [task.name for task in inputs.tasks] == ["digits", "textures"]
    assert [task.name for task in inputs.probes] == ["shapes"]


def test_a_plan_counts_all_tasks() -> None:
    few = [*TINY, BOTH, "snapshots.first=2"]
    # 9 steps per task: 2, 4, 8 and the ends of epochs, 3 and 6
    assert plan_steps(load_config(few)) == (18, [0, 2, 3, 4, 6, 8, 9, 11, 12, 13, 15, 17, 18])
    unknown = ["task=[digits,eurosat]", "finetune.epochs=8", "snapshots.ratio=3"]
    assert plan_steps(load_config(unknown)) == (None, None)
    assert plan_steps(load_config([*unknown, "finetune.max_steps=8"])) == (16, None)
    ends = [*unknown, "finetune.max_steps=8", "snapshots.at_epoch_ends=false"]
    assert plan_steps(load_config(ends)) == (16, [0, 1, 3, 8, 9, 11, 16])
    seen = [*TINY, BOTH, "probes.tasks=[shapes,digits]", "probes.n_train=5", "probes.n_test=4"]
    assert count_images_seen(load_config(seen), 100) == 100 + 9 + 2 * (24 + 10)
    one, two = (load_config([*TINY, *more]) for more in ([], [BOTH]))
    network = describe_network(one.backbone)
    # a head of 6 textures: a weight vector and a bias for each
    difference = count_trained(two, network)[1] - count_trained(one, network)[1]
    assert difference == 4 * 6 * (network.widths[-1] + 1)


def test_snapshots_and_stages_count_on() -> None:
    config = load_config(["snapshots.ratio=3"]).snapshots
    assert sequence_steps(config, [(4, 3), (9, 5)]) == [0, 1, 3, 4, 5, 7, 9, 13]
    assert chain_stages(FullConfig(), 1e-3, [4, 9]) == [TrainingStage(0, 4), TrainingStage(4, 13, place=1)]
    method = LpFtConfig(probe_share=0.5, probe_lr=1e-2, lr_factor=0.1)
    found = chain_stages(method, 1e-3, [4, 10])
    assert [(stage.start, stage.stop, stage.head_only, stage.place) for stage in found] == [
        (0, 2, True, 0), (2, 4, False, 0), (4, 9, True, 1), (9, 14, False, 1),
    ]  # fmt: skip


def test_tasks_of_one_size_have_batches_of_their_own() -> None:
    first, second = plan_sequence(load_config(TINY), [24, 24])
    assert last_steps([first, second]) == [9, 18]
    assert sorted(np.concatenate([second.batch(step) for step in range(3)])) == list(range(24))
    assert list(first) != list(second)
    assert list(replace(second, start=4)) == list(second)[4:]


# --- training


def train(folder: Path, *overrides: str) -> None:
    """Fine-tune a small network into a folder."""
    made_training.train(folder, *SMALL, *overrides)


def state(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return read_weights(snapshot_folder(folder, step) / "weights.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps on digits, then four on textures."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder, BOTH)
    return folder


def test_the_first_task_is_trained_as_if_it_were_alone(whole: Path, tmp_path: Path) -> None:
    train(tmp_path, "task=digits")
    assert list_snapshots(tmp_path) == [0, 1, 2, 3, 4]
    assert list_snapshots(whole) == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    alone, then = state(tmp_path, 4), state(whole, 4)
    assert alone.keys() - {"head.weight", "head.bias"} == {name for name in then if "head." not in name}
    for name, tensor in alone.items():
        assert torch.equal(then[name.replace("head.", "head.0.")], tensor)
    assert {key: value for key, value in values(whole).items() if key[1] <= 4} == values(tmp_path)


def test_every_task_has_a_head_and_a_schedule_of_its_own(whole: Path) -> None:
    assert read_manifest(snapshot_folder(whole, 8)).n_classes == [10, 6]
    half, end = state(whole, 4), state(whole, 8)
    assert not half["head.1.weight"].any() and not half["head.1.bias"].any()
    for part in ("weight", "bias"):
        assert torch.equal(half[f"head.0.{part}"], end[f"head.0.{part}"])
        assert end[f"head.1.{part}"].any()
    assert any(not torch.equal(half[name], end[name]) for name in half if "head" not in name)
    rows = values(whole)
    rates = [rows["train/lr", step] for step in range(1, 9)]
    assert rates[:4] == rates[4:] and len(set(rates)) > 2
    # a zero head: all six classes are equally likely
    assert rows["train/loss", 5] == pytest.approx(np.log(6))


# before the first task's last snapshot, right after the boundary, and within the second task
@pytest.mark.parametrize(("step", "method"), [(4, "full"), (5, "lp_ft"), (7, "lora")])
def test_stopped_training_ends_with_the_same_bits(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, method: str
) -> None:
    overrides = [BOTH, f"method={method}", *(["method.dropout=0.5"] if method == "lora" else [])]
    if method != "full":
        whole = tmp_path / "whole"
        train(whole, *overrides)
    with interrupted(step, monkeypatch):
        train(tmp_path / "stopped", *overrides)
    assert list_snapshots(tmp_path / "stopped") == list(range(step))
    train(tmp_path / "stopped", *overrides)
    for kept in range(9):
        folders = [snapshot_folder(folder, kept) for folder in (whole, tmp_path / "stopped")]
        assert read_manifest(folders[0]).weights_hash == read_manifest(folders[1]).weights_hash
    assert values(whole) == values(tmp_path / "stopped")


KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from harness.finetuning import loop as finetune
from made_training import SMALL, train
written = finetune.write_snapshot
def stop(folder, model, manifest):
    written(folder, model, manifest)
    if manifest.step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
finetune.write_snapshot = stop
train(Path(sys.argv[1]), *SMALL, *sys.argv[2:])
"""


def test_a_run_that_was_killed_at_the_boundary_goes_on(whole: Path, tmp_path: Path) -> None:
    places = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, "-c", KILLED, str(tmp_path), BOTH]
    done = subprocess.run(command, env=environment, timeout=400)
    assert done.returncode == -signal.SIGKILL
    assert list_snapshots(tmp_path) == [0, 1, 2, 3, 4]
    train(tmp_path, BOTH)
    assert values(tmp_path) == values(whole)
    for name, tensor in state(whole, 8).items():
        assert torch.equal(state(tmp_path, 8)[name], tensor)


def test_penalties_are_of_the_pretrained_weights_and_the_head_in_use(tmp_path: Path) -> None:
    train(tmp_path, BOTH, "method=l2_sp", "snapshots.ratio=100", "snapshots.at_epoch_ends=false")
    rows = values(tmp_path)
    assert rows["train/penalty", 1] == rows["train/head_penalty", 1] == 0
    # the second task starts away from where the first one did, with a zero head
    assert rows["train/penalty", 5] > 0 and rows["train/head_penalty", 5] == 0
    assert rows["train/head_penalty", 4] > 0
    weights = [state(tmp_path, step) for step in (0, 4)]
    squares = sum(
        float((weights[1][name] - weights[0][name]).double().square().sum())
        for name in weights[0]
        if "head." not in name
    )
    assert rows["train/penalty", 5] == pytest.approx(0.1 / 2 * squares, rel=1e-4)


def test_flyp_reads_the_classes_of_every_task(tmp_path: Path) -> None:
    backbone = make_tiny_clip(tmp_path, image_size=64)
    tasks = [load_once(name, 24, 10) for name in ("digits", "textures")]
    model = tune(backbone, [task.n_classes for task in tasks], FlypConfig(), 0, tasks)
    for place, task in enumerate(tasks):
        alone = tune(backbone, task.n_classes, FlypConfig(), 0, task)
        assert torch.equal(model.heads[place].weight, alone.head.weight)
        model.choose_head(place)
        assert torch.equal(model.texts.ids, alone.texts.ids)
    # the snapshot stores the shared tower once; heads and tokens are rebuilt
    assert model.changing_state().keys() == alone.changing_state().keys()


# --- measures

# the worked example of the definitions, as fractions
R = np.array([[0.80, 0.20, 0.30], [0.90, 0.85, 0.25], [0.70, 0.75, 0.95]])
B = np.array([0.10, 0.15, 0.12])
NAMES = ("a", "b", "c")


def make_scores(row: np.ndarray, measure: str = "accuracy", multi_label: tuple[str, ...] = ()) -> dict:
    scores = dict(zip(NAMES, row.tolist(), strict=True))
    return {
        "heads": {name: {measure: value} for name, value in scores.items()},
        "probe": {name: {f"linear_{measure}": value} for name, value in scores.items()},
        "multi_label": list(multi_label),
    }


def test_measures_of_the_worked_example() -> None:
    probes = {step: make_scores(row) for step, row in zip((0, 5, 9, 12), [B, *R], strict=True)}
    rows = dict(name_sequence(probes, NAMES, [5, 9, 12], False))
    assert rows[5] == {"sequence/head/average_accuracy": 0.8, "sequence/linear/average_accuracy": 0.8}
    expected = {
        "average_accuracy": 0.8,
        "backward_transfer": -0.1,
        "forgetting_chaudhry": 0.15,
        "forgetting_max_all": 0.15,
        # (.2 / .9 + .1 / .85) / 2
        "relative_forgetting": (2 / 9 + 2 / 17) / 2,
    }
    before = {"forward_transfer": 0.09, "transfer": 0.2375}
    assert rows[12] == pytest.approx(
        {f"sequence/head/{name}": value for name, value in expected.items()}
        | {f"sequence/linear/{name}": value for name, value in (expected | before).items()}
    )
    # for the first two tasks, as if there were no third
    linear = {name.rpartition("/")[2]: value for name, value in rows[9].items() if "/linear/" in name}
    assert linear == pytest.approx(
        {
            "average_accuracy": 0.875,
            "backward_transfer": 0.1,
            "forgetting_chaudhry": -0.1,
            "forgetting_max_all": 0.0,
            "relative_forgetting": 0.0,
            "forward_transfer": 0.05,
            "transfer": 0.2,
        }
    )
    # heads made from texts predict before they are trained; not all tasks may have ended
    rows = dict(name_sequence(probes, NAMES, [5, 9], True))
    assert list(rows) == [5, 9]
    assert rows[9]["sequence/head/forward_transfer"] == pytest.approx(0.05)


def test_auroc_is_named_and_never_mixed_with_accuracy() -> None:
    probes = {step: make_scores(row, "auroc", NAMES) for step, row in zip((0, 1, 2, 3), [B, *R], strict=True)}
    rows = dict(name_sequence(probes, NAMES, [1, 2, 3], False))
    assert rows[3]["sequence/linear/average_auroc"] == pytest.approx(0.8)
    assert rows[3]["sequence/head/backward_transfer_auroc"] == pytest.approx(-0.1)
    assert all(name.endswith("_auroc") for name in rows[3])
    mixed = {step: {**scores, "multi_label": ["b"]} for step, scores in probes.items()}
    assert list(name_sequence(mixed, NAMES, [1, 2, 3], False)) == []


# --- a whole run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sequence")
    config = load_config(
        [
            *TINY, *SMALL_TRACKING, *SMALL, BOTH, "backbone.name=small",
            "snapshots.first=4", "snapshots.at_epoch_ends=false", f"runs_dir={root}/runs",
            "stability.window=2",
        ]
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        folder = run(config)
        curves = metric_curves("sequence", study=config.study.name)
    assert set(curves["place"]) == {"head", "linear", "knn"}
    assert set(curves["task"]) == {"digits+textures"}
    assert folder == run_folder(config)
    return folder


def test_heads_and_probes_of_all_tasks_are_measured_at_every_snapshot(finished: Path) -> None:
    rows = values(finished)
    assert list_snapshots(finished) == [0, 4, 8]
    for step in (0, 4, 8):
        for name in ("digits", "textures"):
            assert {(f"task/{name}/accuracy", step), (f"probe/{name}/knn_accuracy", step)} <= rows.keys()
            assert (f"forgetting/{name}/delta_lp", step) not in rows
        assert ("forgetting/shapes/delta_lp", step) in rows
    # a zero head predicts the first class for every image
    assert rows["task/textures/accuracy", 0] == rows["task/textures/accuracy", 4]
    initial, *matrix = (
        [rows[f"probe/{name}/linear_accuracy", step] for name in ("digits", "textures")] for step in (0, 4, 8)
    )
    assert rows["sequence/linear/average_accuracy", 4] == matrix[0][0]
    assert rows["sequence/linear/average_accuracy", 8] == pytest.approx(np.mean(matrix[1]))
    assert rows["sequence/linear/backward_transfer", 8] == pytest.approx(matrix[1][0] - matrix[0][0])
    assert rows["sequence/linear/forward_transfer", 8] == pytest.approx(matrix[0][1] - initial[1])
    assert ("sequence/head/backward_transfer", 8) in rows
    assert ("sequence/head/forward_transfer", 8) not in rows
    # heads around the boundary, on the same test images as at snapshots
    for name, steps in (("digits", (4, 8)), ("textures", (8,))):
        for step in steps:
            assert rows[f"stability/{name}/accuracy", step] == rows[f"task/{name}/accuracy", step]
    after = [rows["stability/digits/accuracy", step] for step in (5, 6, 8)]
    assert rows["stability/digits/depth", 4] == rows["task/digits/accuracy", 4] - min(after[:2])
    assert rows["stability/all/min_acc", 8] == min(after)
    assert rows["stability/all/wc_acc", 8] == (rows["task/textures/accuracy", 8] + min(after)) / 2
    manifest = read_json(finished / "manifest.json")
    assert set(manifest["tasks"]) == {"digits", "textures", "shapes"}
    assert {"task", "task textures"} <= manifest["fingerprints"].keys()


def test_every_row_is_in_the_catalogue(finished: Path) -> None:
    patterns = check_rows(finished)
    assert {"sequence/<scoring>/backward_transfer", "stability/all/wc_acc"} <= patterns


def test_the_comparison_and_the_report_show_it(finished: Path) -> None:
    (result,) = read_runs(finished.parent)
    assert (result.tasks, result.task_ends) == (("digits", "textures"), [4, 8])
    frame = compare_runs([result])
    metrics = {metric for metric, _, _ in frame.columns}
    assert {"task/digits/accuracy", "task/textures/accuracy", "sequence/linear/transfer"} <= metrics
    text = format_table(frame)
    assert "sequence, linear probe" in text and "BWT" in text and max(map(len, text.splitlines())) <= 120
    (line,) = choose_lines([result])
    matrix = read_matrix(line, "head")
    expected = [[result.curve(f"task/{name}/accuracy")[step] for name in result.tasks] for step in (0, 4, 8)]
    assert matrix.tolist() == expected
    assert read_matrix(line, "zero_shot") is None
    head, probe, empty = draw_matrices([line]).axes
    assert [text.get_text() for text in head.texts] == [f"{value:.3f}" for row in expected for value in row]
    assert [label.get_text() for label in head.get_yticklabels()] == [
        "step 0", "after digits", "after textures",
    ]  # fmt: skip
    assert "BWT" in head.get_xlabel() and "FWT" not in head.get_xlabel() and "FWT" in probe.get_xlabel()
    assert not empty.axison
    gap, *empty = draw_gaps([line]).axes
    steps, scores = gap.lines[0].get_data()
    assert steps.tolist() == [-2, -1, 0, 1, 2]
    assert scores.tolist() == result.curve("stability/digits/accuracy")[[2, 3, 4, 5, 6]].tolist()
    assert gap.get_title(loc="left") == "digits accuracy, textures starts" and not any(
        ax.axison for ax in empty
    )
    # every task has a panel with linear steps, so that no task is squeezed
    curves = draw_forgetting([line], ["shapes"]).axes
    titles = [ax.get_title(loc="left") for ax in curves]
    assert titles == ["digits accuracy, head", "textures accuracy, head", "Δ_LP shapes"]
    assert all(ax.get_xscale() == "linear" and ax.get_xticks().tolist() == [0, 4, 8] for ax in curves)
    page = write_report(finished.parent).read_text()
    assert page.count("One task after another") >= 2 and "<b>BWT</b>" in page
    assert "The stability gap" in page and "WC-ACC" in page


def test_what_else_reads_a_run_reads_a_sequence(finished: Path) -> None:
    config = read_config(finished / "config.yaml")
    assert read_backbone(config, finished, 8).widths
    inputs = load_inputs(config, finished / "wise_ft")
    wise_ft.measure_curve(config, finished, [0.5], inputs, build_accelerator(config.finetune))
    rows = values(finished)
    assert ("wise_ft.task/textures/accuracy", 50) in rows
    assert rows["wise_ft.task/digits/accuracy", 100] == rows["task/digits/accuracy", 8]
    assert not any(name.startswith("wise_ft.sequence") for name, _ in rows)
