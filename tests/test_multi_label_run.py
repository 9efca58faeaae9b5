"""A run on a multi-label task with a multi-label probe: fine-tuned, tracked, compared, queried."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from catalogued import check_rows
from made_images import FINDINGS, write_findings, write_folders
from overrides import SMALL_TRACKING, TINY

from harness.commands.finetune import run
from harness.config.compose import load_config
from harness.reporting.comparison import compare_runs
from harness.reporting.run_results import read_runs
from harness.reporting.text_table import format_table
from harness.storage.files import read_json
from harness.tracking.curves import metric_curves


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several")
    birds = write_folders(root / "birds", {"robin": 9, "wren": 8})
    table = write_findings(root / "chest", 40)
    probe = write_findings(root / "probe", 30, first=500)
    with pytest.MonkeyPatch.context() as patch:
        # users' tasks become probes through a file in their configuration folder
        (root / "configs" / "task").mkdir(parents=True)
        patch.setenv("PALIMPSEST_CONFIGS", str(root / "configs"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        columns = {"image_column": "file", "label_columns": list(FINDINGS), "multi_label": True}
        own = {"birds": {"source": "imagefolder", "root": str(birds)}}
        own["old"] = {"source": "table", "table": str(probe)} | columns
        for name, settings in own.items():
            (root / "configs" / "task" / f"{name}.yaml").write_text(yaml.safe_dump({"name": name} | settings))
        config = load_config(
            [
                *TINY,
                *SMALL_TRACKING,
                "task=table",
                "task.name=chest",
                f"task.table={table}",
                "task.image_column=file",
                f"task.label_columns=[{','.join(FINDINGS)}]",
                "task.multi_label=true",
                "task.test_share=0.25",
                "probes.tasks=[birds,old,chest]",
                "finetune.epochs=2",
                "snapshots.first=6",
                "snapshots.at_epoch_ends=false",
                f"runs_dir={root}/runs",
            ]
        )
        folder = run(config)
        curves = metric_curves("forgetting", study=config.study.name)
        assert {"delta_lp_auroc", "delta_lp"} <= set(curves["measure"])
    return folder


def test_what_is_measured_is_named(finished: Path) -> None:
    (result,) = read_runs(finished.parent)
    names = set(result.rows["name"])
    for measure in ("accuracy", "balanced_accuracy", "auroc", "ece", "auroc_left_out"):
        assert {f"task/chest/{measure}", f"probe/chest/linear_{measure}", f"probe/old/knn_{measure}"} <= names
    assert {"forgetting/old/delta_lp_auroc", "forgetting/birds/delta_lp"} <= names
    assert (
        not {"forgetting/old/delta_lp", "forgetting/birds/delta_lp_auroc", "forgetting/chest/delta_lp_auroc"}
        & names
    )
    # a zero-initialised head ranks nothing
    assert result.curve("task/chest/auroc")[0] == 0.5
    # colours determine the labels, so even features of an untrained network do
    assert result.curve("probe/chest/linear_auroc")[0] > 0.6


def test_every_row_is_in_the_catalogue(finished: Path) -> None:
    assert {"forgetting/<task>/delta_lp_auroc", "task/<task>/auroc_left_out"} < check_rows(finished)


def test_the_manifest_describes_all_tasks(finished: Path) -> None:
    tasks = read_json(finished / "manifest.json")["tasks"]
    assert {name: (task["n_train"], task["n_test"]) for name, task in tasks.items()} == {
        "chest": (24, 10),
        "birds": (13, 4),
        "old": (24, 6),
    }
    assert tasks["old"]["multi_label"] and not tasks["birds"]["multi_label"]


def test_auroc_stands_for_the_task_in_the_comparison(finished: Path) -> None:
    frame = compare_runs(read_runs(finished.parent))
    metrics = {metric for metric, _, _ in frame.columns}
    assert {"task/chest/auroc", "probe/chest/linear_auroc", "forgetting/old/delta_lp_auroc"} <= metrics
    assert not {"task/chest/accuracy", "forgetting/old/delta_lp"} & metrics
    text = format_table(frame)
    assert "chest: AUROC" in text and "old (AUROC)" in text and "chest: linear probe, AUROC" in text
