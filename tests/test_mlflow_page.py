"""The snippets of the page on MLflow run as written, on a store like the demo's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from made_study import STEPS, make_brain, write_run

from harness.commands.query import main
from harness.config.compose import read_config
from harness.config.folders import REPOSITORY
from harness.runs.journal import Journal
from harness.tracking.store.tracked_run import TrackedRun

PAGE = REPOSITORY / "docs" / "mlflow.md"


def test_every_snippet_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    for backbone in ("mini_clip", "mini_supervised"):
        base = ["runs_dir=runs", "study.name=demo", "mapping.floor_refits=2", f"backbone={backbone}"]
        write_run(base, make_brain(4), STEPS)
    folders = sorted((tmp_path / "runs" / "demo").iterdir())
    assert len(folders) == 2
    for folder in folders:
        with Journal(folder / "results.jsonl") as journal:
            kinds = {f"verdict/{place}/kind": 3.0 for place in ("V4", "all")}
            journal.log(STEPS[-1], kinds | {"collapse/all/collapsed": 0.0})
        assert TrackedRun(read_config(folder / "config.yaml"), folder).forward("FINISHED")
    text = PAGE.read_text(encoding="utf-8").replace("step=75", f"step={STEPS[-1]}")
    blocks = re.findall(r"^```(python|bash)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert [kind for kind, _ in blocks] == ["bash", *["python"] * 4]
    names: dict[str, object] = {}
    printed = []
    try:
        for kind, code in blocks:
            if kind == "bash":
                main(shlex.split(code)[2:])
            else:
                exec(compile(code, str(PAGE), "exec"), names)
            printed.append(capsys.readouterr().out)
    finally:
        # the page sets MLflow's global address
        mlflow.set_tracking_uri(None)
    command, curves, runs, history, table = printed
    assert command.count("mini_clip") == 5 and "refits" in command
    assert all(f"\n{step} " in curves for step in STEPS) and "mini_supervised" in curves
    assert runs.count("mini_") == runs.count("rewired: V4") == 2 and "NaN" not in runs
    assert history.count("(") == len(STEPS) - 1
    assert "wasserstein_null" in table
