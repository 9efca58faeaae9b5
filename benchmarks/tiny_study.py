"""A study of tiny runs in a folder of its own, for checks of launchers."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from machine import describe_machine, write_figures
from soak_process import compare, read_results

from harness.config import REPOSITORY
from harness.tracking.store.keys import RUN_TAG

SMALL = [
    "backbone=mini_random",
    "task=digits",
    "task.n_train=40",
    "task.n_test=20",
    "finetune.num_workers=0",
    "snapshots.at_epoch_ends=false",
    "brain.n_voxels=100",
    "mapping.steps=3",
    "mapping.floor_refits=2",
    "mapping.n_channels=4",
    "probes.tasks=[]",
    "probes.n_drift=8",
    "probes.steps=3",
]
"""Of runs that take seconds."""
TINY = [
    *SMALL,
    "finetune.max_steps=200",
    "finetune.epochs=1000",
    "finetune.batch_size=8",
    "snapshots.ratio=20",
    "snapshots.resume_every=5",
    "brain.n_stimuli=60",
]
LIMIT = 900.0  # seconds of a study
DIFFERENT = "runs that differ from the local launcher's"


class Study:
    """A study in a folder of its own, called as a user does.

    Parameters
    ----------
    folder : Path
        Of runs, cache and output.
    name : str
    seeds : list of int
    environment : dict
        Further variables.
    """

    def __init__(self, folder: Path, name: str, seeds: list[int], environment: dict[str, str]) -> None:
        self.folder, self.name, self.seeds = folder, name, seeds
        self.folder.mkdir(parents=True, exist_ok=True)
        self.runs = folder / "runs"
        own = {"PALIMPSEST_CACHE": str(folder / "cache"), "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1"}
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"},
            **own,
            **{"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"},
            **environment,
        }

    def start(self, *overrides: str) -> subprocess.Popen[bytes]:
        """Start `palimpsest study`; what it prints is added to a file."""
        grid = f"study.grid={{seed: {self.seeds}}}"
        arguments = [*TINY, f"study.name={self.name}", grid, f"runs_dir={self.runs}", *overrides]
        with (self.folder / f"{self.name}.out").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "harness", "study", *arguments],
                cwd=self.folder,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def call(self, *overrides: str) -> str:
        """Run `palimpsest study` to its end; return what it has printed."""
        file = self.folder / f"{self.name}.out"
        before = file.stat().st_size if file.exists() else 0
        status = self.start(*overrides).wait(LIMIT)
        said = file.read_bytes()[before:].decode()
        assert status == 0, f"palimpsest study ended with {status}: {said[-2000:]}"
        return said

    def said(self) -> str:
        """Return all that its calls have printed."""
        return (self.folder / f"{self.name}.out").read_text("utf-8")

    def run(self, seed: int) -> Path | None:
        """Return the folder of a run; None: it has none yet."""
        return next((self.runs / self.name).glob(f"mini_random-*-seed{seed}-*"), None)

    def results(self) -> dict[str, dict[str, str]]:
        """Return everything that the runs have found, without the configuration, which names the launcher."""
        found = {}
        for seed in self.seeds:
            run = self.run(seed)
            assert run is not None
            found[run.name] = read_results(run)
            del found[run.name]["config.yaml"]
            manifest = json.loads(found[run.name]["manifest.json"])
            del manifest["config_sha256"]
            found[run.name]["manifest.json"] = json.dumps(manifest)
        return found


def wait_for_checkpoint(study: Study, process: subprocess.Popen[bytes], seed: int) -> tuple[Path, int]:
    """Wait until a run is in the middle of its fine-tuning; return its folder and last checkpoint's step."""
    deadline = time.monotonic() + LIMIT
    while True:
        run = study.run(seed)
        steps = sorted(run.glob("checkpoints/step-*")) if run else []
        if run is not None and steps:
            return run, int(steps[-1].name.rpartition("-")[2])
        assert process.poll() is None, study.said()[-2000:]
        assert time.monotonic() < deadline, f"run {seed} has no checkpoint after {LIMIT:.0f} s"
        assert run is None or not (run / "finished.json").exists(), f"run {seed} was too fast to disturb"
        time.sleep(0.02)


def compare_with_local(work: Path, *studies: Study) -> dict[str, Any]:
    """Make studies on the local launcher too; return how many results were compared, and which differ."""
    n_runs = n_places = 0
    different: dict[str, list[str]] = {}
    for study in studies:
        local = Study(work / "local", study.name, study.seeds, {})
        local.call()
        expected, found = local.results(), study.results()
        assert expected.keys() == found.keys()
        n_runs += len(expected)
        n_places += sum(len(results) for results in expected.values())
        ways = {name: compare(expected[name], found[name])[:5] for name in expected}
        different |= {name: some for name, some in ways.items() if some}
    return {"runs": n_runs, "places compared": n_places, DIFFERENT: different}


def count_in_store(runs: Path) -> dict[str, int]:
    """Count the runs in MLflow by status, without those of studies."""
    with closing(sqlite3.connect(runs / "mlflow.db")) as connection:
        return dict(
            connection.execute(
                "SELECT status, COUNT(*) FROM runs JOIN tags USING (run_uuid) "
                f"WHERE tags.key = '{RUN_TAG}' GROUP BY status"
            ).fetchall()
        )


def run_check(description: str, name: str, check: Callable[[Path], dict[str, Any]]) -> None:
    """Be the command of a check: run it in a folder, and write what was seen.

    Parameters
    ----------
    description : str
        Of the command.
    name : str
        Of the temporary folder.
    check : function of a folder
        Returns what was seen, without the machine.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="keep all files in this folder")
    arguments = parser.parse_args()
    work = (arguments.work or Path(tempfile.mkdtemp(prefix=f"{name}_"))).resolve()
    work.mkdir(parents=True, exist_ok=True)
    figures = {"machine": describe_machine(), **check(work)}
    write_figures(figures, arguments.output)
    print(json.dumps(figures, indent=2))
    if arguments.work is None:
        shutil.rmtree(work)
    if figures[DIFFERENT]:
        sys.exit("the launchers' results differ")
