"""What a run's MLflow record holds, in MLflow's own terms, and stores that moved or cannot be written."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from overrides import SMALL_TRACKING, TINY

from harness.backbones.backbone import encoder_hash
from harness.commands.finetune import run
from harness.config.compose import flatten, load_config, to_yaml
from harness.config.folders import group_options
from harness.config.run import Config
from harness.finetuning.methods.tuned import tune
from harness.finetuning.snapshots import read_snapshot
from harness.measures.catalogue import CATALOGUE, INTERPOLATED
from harness.runs.inputs import load_inputs
from harness.runs.journal import Journal
from harness.runs.layout import list_snapshots, mapping_folder, run_folder, snapshot_folder
from harness.storage.files import write_json
from harness.studies.study import send_missing
from harness.tracking.queries import query
from harness.tracking.store.connection import connect, tracking_uri
from harness.tracking.store.contents import describe_params, describe_tags
from harness.tracking.store.keys import metric_key, metric_name
from harness.tracking.store.study_run import log_study
from harness.tracking.store.tables import read_results
from harness.tracking.store.tracked_run import TrackedRun

MANIFEST = {
    "code_version": "v1-3-gabc",
    "commit": "a" * 40,
    "fingerprints": {"brain": "b" * 64},
    "tasks": {
        "digits": {"fingerprint": "d" * 64, "n_train": 300, "n_test": 200, "n_classes": 10},
        "shapes": {"fingerprint": "5" * 64, "n_train": 200, "n_test": 150, "n_classes": 12},
    },
}


@pytest.fixture(autouse=True)
def _default_store(_own_tracking_store: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")


def made_run(runs_dir: Path, *overrides: str) -> tuple[Config, Path]:
    """Make the folder of a run with two snapshots, as tracking leaves it."""
    config = load_config([f"runs_dir={runs_dir}", "probes.tasks=[shapes]", *overrides])
    folder = run_folder(config)
    if folder.exists():
        return config, folder
    with Journal(folder / "results.jsonl") as journal:
        journal.log(1, {"train/loss": 0.5, "train/lr": 1e-3})
        for step in (0, 4, 8):
            forgotten = -0.01 * step
            rows = {
                "selectors/V4/layer/blocks.3": 0.5,
                "forgetting/shapes/delta_lp": forgotten,
                "forgetting/shapes/delta_lp_low": forgotten - 0.05,
                "forgetting/shapes/delta_lp_high": forgotten + 0.05,
                "probe/shapes/n_test": 150,
            }
            if step:
                excess = 0.01 * step
                rows |= {
                    "rewiring/V4/wasserstein": 0.02 * step,
                    "rewiring/V4/wasserstein_excess": excess,
                    "rewiring/V4/wasserstein_excess_low": excess - 0.1,
                    "rewiring/V4/wasserstein_excess_high": excess + 0.1,
                }
            journal.log(step, rows)
    (folder / "config.yaml").write_text(to_yaml(config))
    write_json(folder / "manifest.json", MANIFEST)
    write_json(folder / "split.json", {"fitted": [0], "held_out": [1]})
    for step in (0, 8):
        snapshot_folder(folder, step).mkdir(parents=True)
        mapping_folder(folder, step).mkdir(parents=True)
        (mapping_folder(folder, step) / "scores.npz").write_bytes(b"scores")
    return config, folder


def list_all(client: Any, run_id: str, place: str | None = None) -> set[str]:
    """List the files among a run's artifacts."""
    found = set()
    for entry in client.list_artifacts(run_id, place):
        found |= list_all(client, run_id, entry.path) if entry.is_dir else {entry.path}
    return found


def own_run(client: Any, study: str = "default") -> Any:
    (run,) = client.search_runs(
        [client.get_experiment_by_name(study).experiment_id], "tags.`palimpsest.run` != ''"
    )
    return run


def test_a_name_in_mlflow_stands_for_one_metric() -> None:
    places = {"<task>": "shapes", "<layer>": "blocks.3", "<roi>": "V4", "<place>": "all", "<term>": "penalty"}
    names = set()
    for metric in CATALOGUE:
        name = metric.pattern.replace("<scoring>", "class_incremental")
        for placeholder, place in places.items():
            name = name.replace(placeholder, place)
        names |= {name, INTERPOLATED + name}
        stage, *rest = name.split("/", 2)
        if len(rest) == 2:
            names.add(f"{stage}/{rest[0]}/subj01/{rest[1]}")
    keys = {name: metric_key(name) for name in names}
    assert len(set(keys.values())) == len(names)
    assert {metric_name(key) for key in keys.values()} == names
    assert all(key.count("/") == 1 for key in keys.values())


def test_charts_open_on_forgetting_and_rewiring() -> None:
    names = ("alignment/all/slope", "train/loss", "rewiring/V4/wasserstein_excess", "probe/a/linear_accuracy")
    # as MLflow's page sorts groups, by code unit
    groups = sorted({metric_key(name).rpartition("/")[0] for name in (*names, "forgetting/a/delta_lp")})
    assert groups[:2] == ["Forgetting", "Rewiring"]
    assert metric_key("rewiring/V4/wasserstein_excess") == "Rewiring/V4 wasserstein_excess"


@pytest.mark.parametrize("group", ["method", "mapping"])
def test_parameters_need_no_quotes_and_hide_nothing(group: str) -> None:
    for option in group_options(group):
        if option == "python":
            continue
        config = load_config([f"{group}={option}"])
        params = describe_params(config)
        kept = [value for value in flatten(config).values() if value not in ("null", "[]", "{}", "")]
        # one parameter per setting: no two names fall together
        assert len(params) == len(kept), option
        assert all(name.isidentifier() for name in params)
        assert {"backbone": "mini_clip", "task": "digits", "brain": "simulated"}.items() <= params.items()
    assert describe_params(load_config(["task=[digits,textures]"]))["task"] == "digits+textures"


def test_a_run_is_found_by_what_mlflow_users_know(tmp_path: Path) -> None:
    config, folder = made_run(tmp_path / "runs", "finetune.lr=2e-4")
    assert TrackedRun(config, folder).forward("FINISHED")
    client = connect(tracking_uri(tmp_path / "runs"))
    experiment = client.get_experiment_by_name("default").experiment_id
    found = client.search_runs(
        [experiment], "params.backbone = 'mini_clip' and params.finetune_lr = '0.0002'"
    )
    assert len(found) == 1
    run = found[0]
    assert not any(value in ("null", "None", "") for value in run.data.params.values())
    tags = run.data.tags
    assert (
        tags["mlflow.source.git.commit"] == "a" * 40 and tags["mlflow.source.name"] == "harness/finetune.py"
    )
    assert tags["mlflow.user"] and tags["mlflow.source.type"] == "LOCAL"
    assert run.info.run_name == "mini_clip digits full seed 0"
    inputs = {
        (one.dataset.name, one.tags[0].value): (one.dataset.digest, one.dataset.source_type)
        for one in run.inputs.dataset_inputs
    }
    assert inputs == {
        ("digits", "training"): ("d" * 36, "code"),
        ("shapes", "probe"): ("5" * 36, "code"),
        ("simulated", "stimuli"): ("b" * 36, "code"),
    }
    profiles = {one.dataset.name: json.loads(one.dataset.profile) for one in run.inputs.dataset_inputs}
    assert profiles["digits"] == {"n_train": 300, "n_test": 200, "n_classes": 10}
    # headlines only
    assert {key for key in run.data.metrics if not key.startswith("system/")} == {
        *("train/loss", "train/lr", "Rewiring/V4 wasserstein_excess", "Forgetting/shapes delta_lp"),
    }


def test_a_study_has_a_run_of_its_own_and_children_on_request(tmp_path: Path) -> None:
    config, folder = made_run(tmp_path / "runs", "mlflow.nested=true")
    assert TrackedRun(config, folder).forward("FINISHED")
    report = folder.parent / "report.html"
    report.write_text("<p>report</p>")
    assert log_study(folder.parent, {"comparison": pd.DataFrame({"a": [1]})}, [report], {"x/y": 2.0})
    client = connect(tracking_uri(tmp_path / "runs"))
    parent = client.get_run(own_run(client).data.tags["mlflow.parentRunId"])
    assert parent.info.run_name == "study default" and parent.info.status == "FINISHED"
    assert list_all(client, parent.info.run_id) == {"report.html", "comparison.csv", "comparison.json"}
    assert parent.data.metrics == {"x/y": 2.0}
    # the same run, by default beside the study's
    config, folder = made_run(tmp_path / "runs", "mlflow.nested=false")
    assert TrackedRun(config, folder).forward("FINISHED")
    assert "mlflow.parentRunId" not in own_run(client).data.tags


def test_artifacts_hold_the_rest_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = made_run(tmp_path / "runs")
    for _ in range(2):
        assert TrackedRun(config, folder).forward("FINISHED")
    client = connect(tracking_uri(tmp_path / "runs"))
    run = own_run(client)
    assert list_all(client, run.info.run_id) == {
        *("config.yaml", "manifest.json", "split.json", "results.parquet"),
        *(f"tables/{kind}.json" for kind in ("rewiring", "selectors", "forgetting", "probe")),
        "mappings/step-000008/scores.npz",
    }
    assert len(run.inputs.dataset_inputs) == 3
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", tracking_uri(tmp_path / "runs"))
        table = client.load_table(run.info.experiment_id, "tables/rewiring.json", [run.info.run_id])
    assert list(table["step"]) == [4, 8] and list(table["wasserstein"]) == [0.08, 0.16]
    (path,) = (tmp_path / "runs").rglob("results.parquet")
    assert len(read_results(path, lambda name: True)) == 25
    # all mappings, or none, on request
    for seed, (chosen, expected) in enumerate((("all", 2), ("none", 0)), 1):
        config, folder = made_run(tmp_path / "runs", f"mlflow.mappings={chosen}", f"seed={seed}")
        assert TrackedRun(config, folder).forward("FINISHED")
        (found,) = client.search_runs([run.info.experiment_id], f"tags.seed = '{seed}'")
        files = list_all(client, found.info.run_id)
        assert sum(file.startswith("mappings/") for file in files) == expected


def test_a_query_says_interval_and_p(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        config, folder = made_run(tmp_path / "runs", f"seed={seed}")
        assert TrackedRun(config, folder).forward("FINISHED")
    own = query("rewiring", "roi,seed", runs_dir=tmp_path / "runs")
    assert list(own["step"].unique()) == [0, 4, 8]
    start = own[(own["seed"] == "0") & (own["step"] == 0)].iloc[0]
    assert (start["mean"], start["low"], start["high"]) == pytest.approx((0.0, -0.1, 0.1))
    last = own[(own["seed"] == "0") & (own["step"] == 8)].iloc[0]
    assert (last["mean"], last["low"], last["high"]) == pytest.approx((0.08, -0.02, 0.18))
    assert last["interval"] == "refits"
    forgetting = query("forgetting", "place,seed", runs_dir=tmp_path / "runs")
    # ends of intervals are columns, not lines
    assert set(forgetting["measure"]) == {"delta_lp"} and set(forgetting["interval"]) == {"test images"}
    over_seeds = query("forgetting", "place", runs_dir=tmp_path / "runs")
    assert set(over_seeds["interval"]) == {"seeds"} and set(over_seeds["counts"]) == {"3 runs (3 seeds)"}
    asked = query("forgetting", "place,seed", measure="delta_lp_low", runs_dir=tmp_path / "runs")
    assert set(asked["measure"]) == {"delta_lp_low"}


def test_a_store_moves_with_its_folder(tmp_path: Path) -> None:
    config, folder = made_run(tmp_path / "runs")
    assert TrackedRun(config, folder).forward("FINISHED")
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    # nothing is left at the old place, and reading mends nothing it need not
    table = query("rewiring", measure="wasserstein", runs_dir=tmp_path / "elsewhere", by="roi")
    assert list(table["mean"]) == [0.08, 0.16]
    client = connect(tracking_uri(tmp_path / "elsewhere"))
    run = own_run(client)
    assert run.info.artifact_uri.startswith((tmp_path / "elsewhere").as_uri())
    text = Path(client.download_artifacts(run.info.run_id, "config.yaml")).read_text()
    assert (
        text == (tmp_path / "elsewhere" / folder.relative_to(tmp_path / "runs") / "config.yaml").read_text()
    )
    # a new run of the study goes there too
    config, folder = made_run(tmp_path / "elsewhere", "seed=1")
    assert TrackedRun(config, folder).forward("FINISHED")
    assert not (tmp_path / "runs").exists()


def test_a_store_that_cannot_be_written_can_be_queried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = made_run(tmp_path / "runs")
    assert TrackedRun(config, folder).forward("FINISHED")
    before = {path: path.read_bytes() for path in (tmp_path / "runs").glob("*") if path.is_file()}
    expected = query("rewiring", by="roi", runs_dir=tmp_path / "runs")
    # root may write anywhere, so the test forbids what would: MLflow's client
    monkeypatch.setattr("harness.tracking.store.histories.connect", None)
    pd.testing.assert_frame_equal(query("rewiring", by="roi", runs_dir=tmp_path / "runs"), expected)
    assert {path: path.read_bytes() for path in (tmp_path / "runs").glob("*") if path.is_file()} == before


@contextmanager
def serve(status: int, delay: float) -> Iterator[str]:
    """Serve an odd tracking server on a free port."""

    class Odd(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(delay)
            body = b'{"error_code": "INTERNAL_ERROR", "message": "no"}'
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("status", "delay"), [(500, 0.0), (200, 3.0), (200, 0.0)])
def test_an_odd_server_costs_one_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
    delay: float,
) -> None:
    config, folder = made_run(tmp_path / "runs")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("harness.tracking.store.tracked_run.PERIOD", 0.1)
    with serve(status, delay) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with caplog.at_level(logging.WARNING, "harness"), TrackedRun(config, folder):
            time.sleep(0.5)
        assert not log_study(folder.parent, {"table": pd.DataFrame({"a": [1]})})
    warnings = [one.getMessage() for one in caplog.records if one.name.startswith("harness")]
    assert len(warnings) == 2 and all("\n" not in warning for warning in warnings)
    assert f"palimpsest forward {folder}" in warnings[0] and "not logged: table" in warnings[1]


def test_a_container_without_login_name_has_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("harness.tracking.store.contents.getpass.getuser", fail)
    assert describe_tags(load_config([]), {})["mlflow.user"] == "unknown"


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_last_snapshot_loads_as_a_model(tmp_path: Path) -> None:
    import mlflow.pytorch

    overrides = [*TINY, *SMALL_TRACKING, "mlflow.log_model=true", "probes.tasks=[]"]
    overrides += ["backbone.model=test_vit", "finetune.max_steps=2", "snapshots.first=2"]
    config = load_config([*overrides, "method=lora", f"runs_dir={tmp_path}/runs"])
    folder = run(config)
    client = connect(tracking_uri(tmp_path / "runs"))
    address = own_run(client).data.tags["model"]
    (model,) = client.search_logged_models([own_run(client).info.experiment_id])
    assert address == f"models:/{model.model_id}" and model.source_run_id == own_run(client).info.run_id
    files = Path(client.get_logged_model(model.model_id).artifact_location.removeprefix("file://"))
    assert not [path for path in files.rglob("*") if path.suffix in (".pkl", ".pth", ".bin")]
    loaded = mlflow.pytorch.load_model(str(files))
    inputs = load_inputs(config, folder)
    pretrained = encoder_hash(inputs.backbone)
    images = inputs.backbone.preprocessing(inputs.tasks[0].test[:5]["image"])
    tuned = tune(inputs.backbone, inputs.tasks[0].n_classes, config.method, config.seed, inputs.tasks)
    snapshot = snapshot_folder(folder, list_snapshots(folder)[-1])
    read_snapshot(snapshot, tuned, pretrained)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), tuned.eval()(images), rtol=1e-4, atol=1e-5)
    signature = mlflow.models.get_model_info(str(files)).signature
    assert signature.inputs.inputs[0].shape == (-1, 3, *images.shape[2:])
    # once per run
    run(config)
    assert len(client.search_logged_models([own_run(client).info.experiment_id])) == 1


@pytest.mark.parametrize("kind", ["empty", "half", "text"])
def test_a_half_made_database_is_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    config, folder = made_run(tmp_path / "runs")
    database = tmp_path / "runs" / "mlflow.db"
    if kind == "half":
        # as a kill during MLflow's first migrations leaves it
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT)")
            connection.commit()
    else:
        database.write_text("" if kind == "empty" else "no database")
    with caplog.at_level(logging.WARNING, "harness"):
        assert TrackedRun(config, folder).forward_late()
    (warning,) = [one.getMessage() for one in caplog.records if one.name.startswith("harness")]
    assert "found no whole MLflow store" in warning and "palimpsest forward" in warning
    assert len(list((tmp_path / "runs").glob("mlflow.db.broken-*"))) == 1
    assert not list((tmp_path / "runs").glob("*.partial*"))
    assert own_run(connect(tracking_uri(tmp_path / "runs"))).info.status == "FINISHED"


def test_a_study_sends_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs = [made_run(tmp_path / "runs", f"seed={seed}") for seed in (0, 1)]
    assert TrackedRun(*runs[0]).forward_late()
    assert TrackedRun(*runs[0]).is_sent() and not TrackedRun(*runs[1]).is_sent()
    # a server that is away costs one warning for all of them
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:secret@127.0.0.1:9")
    with caplog.at_level(logging.WARNING, "harness"):
        send_missing(config for config, _ in runs)
    (warning,) = [one.getMessage() for one in caplog.records if one.name.startswith("harness")]
    assert "somebody:***@127.0.0.1" in warning and "secret" not in warning
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    send_missing(config for config, _ in runs)
    client = connect(tracking_uri(tmp_path / "runs"))
    found = client.search_runs(
        [client.get_experiment_by_name("default").experiment_id], "tags.`palimpsest.run` != ''"
    )
    assert {run.info.status for run in found} == {"FINISHED"} and len(found) == 2
    # nothing is left to do, and nothing is asked
    monkeypatch.setattr("harness.tracking.store.tracked_run.connect", None)
    send_missing(config for config, _ in runs)
    with Journal(runs[1][1] / "results.jsonl") as journal:
        journal.log(9, {"train/loss": 0.1})
    assert not TrackedRun(*runs[1]).is_sent()
