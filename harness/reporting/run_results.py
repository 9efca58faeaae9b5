"""Finished runs, read from their folders."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from harness.config import (
    Config,
    flatten,
    main_measure,
    tasks_in_order,
)
from harness.measures import (
    PROBE_KINDS,
    At,
    Change,
    Score,
    Verdict,
    describe,
    name_auroc,
    read_change,
    read_score,
    read_verdict,
    score_interval,
    split_name,
)
from harness.reporting.columns import (
    MAIN,
    TASK,
)
from harness.runs import (
    label_subjects,
    probes_file,
    read_finished_rows,
    read_probes,
    read_run_config,
)
from harness.storage import (
    InputError,
    unknown_name,
)


@dataclass(frozen=True)
class RunResult:
    """One finished run.

    Attributes
    ----------
    config : Config
    folder : Path
    rows : DataFrame
        Content of ``results.jsonl``: columns name, step and value.
    """

    config: Config
    folder: Path
    rows: pd.DataFrame

    def curve(self, name: str) -> pd.Series:
        """Values of a metric by optimizer step, in order; empty if there are none."""
        found = self._curves.get(name)
        return pd.Series(dtype="float64") if found is None else found

    @property
    def names(self) -> list[str]:
        """Names of all its metrics."""
        return list(self._curves)

    @cached_property
    def _curves(self) -> dict[str, pd.Series]:
        # with several subjects there are tens of thousands of rows, and a report asks a thousand times
        rows = self.rows.sort_values("step", kind="stable").set_index("step")
        return {str(name): values for name, values in rows.groupby("name")["value"]}

    @property
    def subjects(self) -> tuple[str, ...]:
        """Labels of its subjects if there are several, else empty."""
        return label_subjects(self.config.brain)

    @property
    def steps(self) -> list[int]:
        """Optimizer steps of the tracked snapshots, in order."""
        return [int(step) for step in self.curve("brain/all/r2").index]

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Layers whose shares were recorded, input first."""
        names = (str(name) for name in self.rows["name"].unique())
        start = "selectors/all/layer/"
        own = (name.removeprefix(start) for name in names if name.startswith(start))
        # derived rows, such as intervals over subjects, are no layers
        return tuple(layer for layer in own if not describe(f"{start}{layer}").ending)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the fine-tuned tasks, in order."""
        return tuple(task.name for task in tasks_in_order(self.config.task))

    @property
    def task_ends(self) -> list[int]:
        """Optimizer steps at which the tasks of a sequence ended, in order; empty for a single task."""
        names = [name for name in self._curves if name.startswith("sequence/")]
        return sorted({int(step) for name in names for step in self._curves[name].index})

    @cached_property
    def verdicts(self) -> dict[str | None, Verdict]:
        """Verdicts of the last snapshot, by subject's label (None: the only one); empty if there is none."""
        last = self.rows[self.rows["step"] == self.steps[-1]]
        rows = dict(zip(last["name"], last["value"], strict=True))
        found = {label: read_verdict(rows, label) for label in (self.subjects or (None,))}
        return {label: verdict for label, verdict in found.items() if verdict is not None}

    @property
    def collapsed(self) -> bool:
        """Whether the backbone of the last snapshot is collapsed."""
        return any(verdict.collapsed for verdict in self.verdicts.values())

    def resolve(self, metric: str) -> str:
        """Fill in a metric's name: `TASK` with the run's task, `MAIN` with its main measure."""
        name = metric.replace(TASK, self.config.task.name)
        return name.replace(MAIN, main_measure(tasks_in_order(self.config.task)[0]))

    def read_change(self, metric: str, at: At) -> Change | None:
        """Read what a probe got right, image by image, behind a metric of forgetting.

        None for another metric, or where the probes files lack it.
        """
        name, step, _ = self.find(metric, at)
        parts = split_name(name)
        kinds = [kind for kind in PROBE_KINDS if parts.measure in (kind.delta, name_auroc(kind.delta))]
        if parts.stage != "forgetting" or not kinds:
            return None
        now, before = (self.probes(one) for one in (step, self.steps[0]))
        if now is None or before is None:
            return None
        return read_change(now, before, parts.place, kinds[0].name)

    def read_score(self, metric: str, step: int) -> Score | None:
        """Read what the head or a probe got right, image by image, behind an accuracy or AUROC.

        None for another metric, for the accuracy over labels of a multi-label task, or where the probes file
        lacks it.
        """
        parts = split_name(self.resolve(metric))
        scorings = {"head": ""} if parts.stage == "task" else {kind.name: kind.prefix for kind in PROBE_KINDS}
        for scoring, prefix in scorings.items():
            if parts.stage in ("task", "probe") and not parts.interpolated:
                probes = self.probes(step)
                found = None if probes is None else read_score(probes, parts.place, scoring)
                if found is not None and parts.measure == prefix + found.measure:
                    return found
        return None

    def score_intervals(self, metric: str) -> dict[int, tuple[float, float]]:
        """95 % interval over test images of an accuracy or AUROC, by step; empty where none is known."""
        curve = self.curve(self.resolve(metric))
        found = {int(step): self.read_score(metric, int(step)) for step in curve.index}
        ends = {step: score_interval(score) for step, score in found.items() if score is not None}
        return {step: pair for step, pair in ends.items() if pair is not None}

    @property
    def multi_label(self) -> tuple[str, ...]:
        """Names of tasks and probes with several labels per image, whose main measure is AUROC."""
        return tuple((self.probes(self.steps[0]) or {}).get("multi_label", ()))

    def probes(self, step: int) -> dict[str, Any] | None:
        """Content of a snapshot's probes file; None for a run without any.

        Raises
        ------
        InputError
            If the file is broken, or other snapshots have one and this one has none.
        """
        if step not in self._of_step:
            probed = probes_file(self.folder, step).parent.exists()
            self._of_step[step] = read_probes(self.folder, step) if probed else None
        return self._of_step[step]

    @cached_property
    def _of_step(self) -> dict[int, dict[str, Any] | None]:
        return {}

    def find(self, metric: str, at: At) -> tuple[str, int, float | None]:
        """Name, step and value of a metric at the first or last snapshot; value None if there is none."""
        name, step = self.resolve(metric), self.steps[0 if at == "start" else -1]
        value = self.curve(name).get(step)
        return name, step, None if value is None else float(value)


def read_runs(study: Path) -> list[RunResult]:
    """Read all finished runs of a study, by name and then by settings.

    Raises
    ------
    InputError
        If the folder does not exist or holds no finished run, or a finished run's file is broken.
    """
    study = Path(study)
    if not study.is_dir():
        if study.parent.is_dir():
            folders = [path.name for path in study.parent.iterdir() if (path / "report.html").exists()]
            raise unknown_name(f"study in {study.parent}", study.name, folders)
        raise InputError(f"{study}: no such folder, expected the folder of a study, such as runs/demo")
    finished = sorted(path.parent for path in study.glob("*/finished.json"))
    if not finished:
        there = len(unfinished_runs(study))
        raise InputError(f"{study}: found no finished run ({there} unfinished), expected at least one")
    # not by the hash in the name, which would reorder variants whenever a setting is added
    runs = [read_run(folder) for folder in finished]
    return sorted(runs, key=lambda run: (run.folder.name.rpartition("-")[0], *flatten(run.config).items()))


def unfinished_runs(study: Path) -> list[str]:
    """Names of a study's runs that have started but not finished."""
    begun = sorted(path.parent for path in Path(study).glob("*/config.yaml"))
    return [folder.name for folder in begun if not (folder / "finished.json").exists()]


def read_run(folder: Path) -> RunResult:
    """Read one run; raises an `InputError` if a file is broken or nothing was tracked."""
    rows = read_finished_rows(folder)
    frame = pd.DataFrame(rows, columns=["name", "step", "value"])
    run = RunResult(read_run_config(folder), folder, frame)
    if not run.steps:
        raise InputError(f"{folder / 'results.jsonl'}: found no brain/all/r2, expected a tracked run")
    return run
