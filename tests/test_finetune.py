import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from made_training import SMALL, interrupted, train
from overrides import SMALL_TRACKING, TINY

from harness.backbones.load import load_backbone
from harness.commands.finetune import main, run
from harness.config.compose import load_config
from harness.config.folders import REPOSITORY
from harness.finetuning import loop
from harness.finetuning.batch_plans import plan_batches
from harness.finetuning.batches import (
    MOST_WORKERS,
    count_workers,
    load_batches,
)
from harness.finetuning.devices import build_accelerator
from harness.finetuning.schedule import learning_rate
from harness.finetuning.snapshots import read_manifest
from harness.runs.journal import read_rows
from harness.runs.layout import (
    list_snapshots,
    run_folder,
    snapshot_folder,
)
from harness.storage.errors import InputError, exit_with_one_line
from harness.storage.files import read_weights
from tasks.load import load_task

NETWORK = SMALL[0]
SHORT = ["finetune.epochs=1"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Train without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return folder


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Train for one epoch."""
    folder = tmp_path_factory.mktemp("short")
    train(folder, *SHORT)
    return folder


def weights_hash(folder, step):
    return read_manifest(snapshot_folder(folder, step)).weights_hash


def final_weights(folder):
    last = list_snapshots(folder)[-1]
    return read_weights(snapshot_folder(folder, last) / "weights.safetensors")


def test_plan_is_a_permutation_per_epoch_whatever_the_number_of_processes():
    config = load_config(["finetune.batch_size=8", "finetune.epochs=3", "finetune.accumulation=2"])
    alone = plan_batches(load_config(["finetune.batch_size=8", "finetune.epochs=3"]), 24, 0, 1)
    shared = [list(plan_batches(config, 24, process, 2)) for process in range(2)]
    assert alone.steps_per_epoch == 3 and alone.n_steps == 9
    whole = list(alone)
    for epoch in range(3):
        assert sorted(itertools.chain(*whole[3 * epoch : 3 * epoch + 3])) == list(range(24))
    assert whole[:3] != whole[3:6]
    for step in range(9):
        micro = [part for process in shared for part in process[2 * step : 2 * step + 2]]
        assert [len(part) for part in micro] == [2] * 4
        assert sorted(itertools.chain(*micro)) == sorted(whole[step])


def test_plan_refuses_batches_that_cannot_be_had():
    with pytest.raises(InputError, match=r"finetune.batch_size: found 32, expected at most 20"):
        plan_batches(load_config([]), 20, 0, 1)
    with pytest.raises(InputError, match=r"found 32, expected a multiple of 3"):
        plan_batches(load_config([]), 100, 0, 3)


def test_workers_are_wanted_or_found():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    cores = joblib.cpu_count()
    assert count_workers(None, cpu, 1) == 0
    assert count_workers(None, gpu, 1) == min(MOST_WORKERS, max(1, cores - 1))
    assert count_workers(None, gpu, 2 * cores) == 1
    assert count_workers(3, cpu, 1) == 3
    assert count_workers(0, gpu, 1) == 0


def test_batches_are_the_same_from_workers_and_in_another_memory_format():
    config = load_config([*TINY])
    task = load_task("digits", config.task.n_train, config.task.n_test)
    preprocessing = load_backbone(config.backbone).preprocessing
    plan = plan_batches(config, len(task.train), 0, 1)

    def batches(*overrides):
        settings = load_config([*TINY, *overrides]).finetune
        return list(load_batches(task.train, preprocessing, plan, settings, torch.device("cpu")))

    plain = batches()
    others = batches("finetune.num_workers=2"), batches("finetune.channels_last=true")
    assert len(plain) == plan.n_steps
    for other in others:
        for (images, labels), (same_images, same_labels) in zip(plain, other, strict=True):
            assert torch.equal(images, same_images) and torch.equal(labels, same_labels)
    assert plain[0][0].is_contiguous()
    assert others[1][0][0].is_contiguous(memory_format=torch.channels_last)


def test_memory_format_changes_no_results(short, tmp_path):
    train(tmp_path, *SHORT, "finetune.channels_last=true")
    plain, last = final_weights(short), final_weights(tmp_path)
    assert any(tensor.ndim == 4 for tensor in plain.values())
    for name, tensor in plain.items():
        torch.testing.assert_close(last[name], tensor, atol=2e-4, rtol=1e-3)


def test_learning_rate_warms_up_and_falls_along_a_cosine():
    settings = load_config(["finetune.lr=1.0", "finetune.warmup_fraction=0.2"]).finetune
    rates = [learning_rate(settings, step, 10) for step in range(10)]
    expected = [0.5, 1.0, *(0.5 * (1 + np.cos(np.pi * k / 8)) for k in range(8))]
    np.testing.assert_allclose(rates, expected)


def test_half_precision_without_a_gpu_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match=r"finetune.precision: found 'fp16'"):
        build_accelerator(load_config(["finetune.precision=fp16"]).finetune)


def test_snapshots_are_on_schedule_and_rows_are_complete(whole):
    assert list_snapshots(whole) == [0, 1, 2, 3, 4, 6, 8, 9]  # doubling, epoch ends 3 and 6, the last
    rows, _ = read_rows(whole / "results.jsonl")
    names = [(row["name"], row["step"]) for row in rows]
    each = ("train/loss", "train/lr", "train/grad_norm")
    assert [name for name in names if name[0].startswith("train/")] == [
        (name, step) for step in range(1, 10) for name in each
    ]
    # layer gradients at a snapshot's step are means over the steps since the previous one
    shares = {step: [] for step in (1, 2, 3, 4, 6, 8, 9)}
    squares = dict.fromkeys(shares, 0.0)
    norms = {row["step"]: row["value"] for row in rows if row["name"] == "train/grad_norm"}
    for row in rows:
        if row["name"].endswith("/grad_share"):
            shares[row["step"]].append(row["value"])
        if row["name"].startswith("drift/") and row["name"].endswith("/grad_norm"):
            squares[row["step"]] += row["value"] ** 2
    assert all(sum(values) == pytest.approx(1) and len(values) == 10 for values in shares.values())
    assert squares[1] == pytest.approx(norms[1] ** 2)
    assert rows[0]["value"] == pytest.approx(np.log(10))  # the head is zero-initialised
    assert not (whole / "checkpoints").exists()


def test_accumulation_and_method_do_not_change_what_they_should_not(whole, tmp_path):
    train(tmp_path / "parts", "finetune.accumulation=4")
    at_once, parts = final_weights(whole), final_weights(tmp_path / "parts")
    for name in at_once:
        torch.testing.assert_close(parts[name], at_once[name], atol=2e-4, rtol=1e-3)
    train(tmp_path / "probe", NETWORK, "method=linear_probe")
    assert set(final_weights(tmp_path / "probe")) == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    "overrides",
    [[], [NETWORK, "method=lora", "method.dropout=0.5"], [NETWORK, "finetune.channels_last=true"]],
    ids=["full", "lora", "channels_last"],
)
def test_stopped_training_ends_with_the_same_weights(whole, tmp_path, monkeypatch, overrides):
    if overrides:
        whole = tmp_path / "whole"
        train(whole, *overrides)
    with interrupted(6, monkeypatch):
        train(tmp_path / "stopped", *overrides)
    assert list_snapshots(tmp_path / "stopped") == [0, 1, 2, 3, 4]
    train(tmp_path / "stopped", *overrides)
    for step in (6, 8, 9):
        assert weights_hash(tmp_path / "stopped", step) == weights_hash(whole, step)
    rows = [read_rows(folder / "results.jsonl")[0] for folder in (whole, tmp_path / "stopped")]
    values = [[(row["name"], row["step"], row["value"]) for row in part] for part in rows]
    assert values[0] == values[1]  # each once, and equal


def test_steps_read_late_are_the_same_rows_snapshots_and_checkpoints(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "reads_late", lambda device: True)
    with interrupted(6, monkeypatch):
        train(tmp_path / "late", "snapshots.resume_every=3")
    train(tmp_path / "late", "snapshots.resume_every=3")
    rows = [read_rows(folder / "results.jsonl")[0] for folder in (whole, tmp_path / "late")]
    values = [[(row["name"], row["step"], row["value"]) for row in part] for part in rows]
    assert values[0] == values[1]
    assert weights_hash(tmp_path / "late", 9) == weights_hash(whole, 9)


def test_divergence_read_late_names_its_step(tmp_path, monkeypatch):
    settings = [NETWORK, "finetune.lr=1e30", "finetune.warmup_fraction=0", "finetune.clip_norm=null"]
    with pytest.raises(InputError, match=r"diverged at step \d+") as expected:
        train(tmp_path / "at once", *settings)
    monkeypatch.setattr(loop, "reads_late", lambda device: True)
    with pytest.raises(InputError) as found:
        train(tmp_path / "late", *settings)
    assert str(found.value) == str(expected.value)


def test_divergence_ends_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"diverged at step \d+.*finetune.lr"):
        train(tmp_path, "finetune.lr=1e30", "finetune.warmup_fraction=0", "finetune.clip_norm=null")


def launch(*command, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *command], env=environment, start_new_session=True, **options)


def test_killed_run_goes_on_and_two_at_once_are_refused(whole, tmp_path):
    # fewer snapshots to track than in `whole`
    overrides = [*TINY, *SMALL_TRACKING, "snapshots.ratio=9", "snapshots.at_epoch_ends=false"]
    overrides.append(f"runs_dir={tmp_path}")
    config = load_config(overrides)
    folder = run_folder(config)
    process = launch(str(REPOSITORY / "harness" / "finetune.py"), *overrides, stderr=subprocess.DEVNULL)
    deadline = time.time() + 240
    while not (folder / "checkpoints").exists():
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(InputError, match=re.escape(f"{folder}: another process is working on this run")):
            run(config)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "finished.json").exists()

    run(config)
    assert (folder / "finished.json").exists()
    assert weights_hash(folder, 9) == weights_hash(whole, 9)


def test_two_processes_train_as_one_and_share_the_tracking(short, tmp_path):
    overrides = [*TINY, *SMALL_TRACKING, *SHORT, f"runs_dir={tmp_path}"]
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    command = [
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]
    script = str(REPOSITORY / "harness" / "finetune.py")
    process = launch(*command, script, *overrides, stderr=subprocess.PIPE, text=True)
    _, message = process.communicate(timeout=500)
    assert process.returncode == 0, message
    folder = run_folder(load_config(overrides))
    rows, _ = read_rows(folder / "results.jsonl")
    names = [(row["name"], row["step"]) for row in rows]
    assert len(names) == len(set(names))
    assert {step for name, step in names if name == "brain/all/r2"} == {0, 1, 2, 3}
    alone, both = final_weights(short), final_weights(folder)
    for name in alone:
        torch.testing.assert_close(both[name], alone[name], atol=2e-4, rtol=1e-3)


def test_wrong_names_end_in_one_line(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        exit_with_one_line(lambda: main(["backbone=mini_clop"]))
    assert ended.value.code == 2
    known = r"expected one of \d+, such as mini_clip, .*; did you mean 'mini_clip'\?"
    output, message = capfd.readouterr()
    assert output == ""
    assert re.fullmatch(rf"error: unknown backbone 'mini_clop': {known}\n", message)
    assert not list(Path(tmp_path).iterdir())
