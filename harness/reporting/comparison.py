"""The comparison of a study's runs: a row per backbone, task and method, over seeds; a column per metric."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from harness.config import (
    Config,
    flatten,
    main_measure,
    read_config,
    tasks_in_order,
)
from harness.measures import name_measure
from harness.reporting.columns import (
    MAIN,
    MEASURES,
    SCORED_BY,
    SEQUENCE,
    TASK,
    At,
    Column,
    describe_column,
    group_by_heading,
    stack,
)
from harness.runs import (
    INTERPOLATED,
    label_subjects,
    name_of_subject,
    read_rows,
)
from harness.storage import (
    InputError,
    unknown_name,
)

Places = tuple[tuple[str, tuple[At, ...]], ...]
# metrics of the brain that are compared, and where
CORTICAL: Places = (
    ("rewiring/all/wasserstein", ("end",)),
    ("rewiring/all/wasserstein_null", ("end",)),
    ("rewiring/all/wasserstein_excess", ("end",)),
    ("rewiring/all/wasserstein_p", ("end",)),
    ("rewiring/all/wasserstein_excess_subjects_p", ("end",)),
    ("alignment/all/hierarchy", ("start", "end")),
    ("alignment/all/hierarchy_null_sd", ("start",)),
    ("brain/all/r2", ("start", "end")),
)
WIDTH = 120  # of a terminal, characters
GAP = 3  # between groups of columns


@dataclass(frozen=True)
class RunResult:
    """One finished run.

    Attributes
    ----------
    config : Config
    folder : Path
    rows : DataFrame
        Columns name, step and value: what ``results.jsonl`` holds.
    """

    config: Config
    folder: Path
    rows: pd.DataFrame

    def curve(self, name: str) -> pd.Series:
        """Values of a metric by optimizer step, in order; empty where there is none."""
        return self._curves.get(name, pd.Series(dtype="float64"))

    @cached_property
    def _curves(self) -> dict[str, pd.Series]:
        # several subjects have tens of thousands of rows, and a report asks a thousand times
        rows = self.rows.sort_values("step", kind="stable").set_index("step")
        return {str(name): values for name, values in rows.groupby("name")["value"]}

    @property
    def subjects(self) -> tuple[str, ...]:
        """Labels of its subjects, if there are several."""
        return label_subjects(self.config.brain)

    @property
    def steps(self) -> list[int]:
        """Optimizer steps of the snapshots that were tracked, in order."""
        return [int(step) for step in self.curve("brain/all/r2").index]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that were fine-tuned on, in order."""
        return tuple(task.name for task in tasks_in_order(self.config.task))

    @property
    def task_ends(self) -> list[int]:
        """Optimizer steps at which the tasks of a sequence ended, in order; empty of one task."""
        names = [name for name in self._curves if name.startswith("sequence/")]
        return sorted({int(step) for name in names for step in self._curves[name].index})

    def resolve(self, metric: str) -> str:
        """Name of a metric in this run: with its task and the task's main measure."""
        name = metric.replace(TASK, self.config.task.name)
        return name.replace(MAIN, main_measure(tasks_in_order(self.config.task)[0]))

    def find(self, metric: str, at: At) -> tuple[str, int, float | None]:
        """Name, step and value of a metric at the first or the last snapshot; None where there is none."""
        name, step = self.resolve(metric), self.steps[0 if at == "start" else -1]
        value = self.curve(name).get(step)
        return name, step, None if value is None else float(value)


class Group(NamedTuple):
    """What runs have in common that differ in their seed only."""

    backbone: str
    task: str
    method: str
    variant: str  # the settings in which it differs from others of these names, such as finetune.lr=0.001

    def label(self, groups: Sequence[Group]) -> str:
        """Name that tells it from the others of a study: the backbone, and whatever else differs."""
        parts = [self.backbone]
        parts += [self.task] if len({group.task for group in groups}) > 1 else []
        parts += [self.method] if len({group.method for group in groups}) > 1 else []
        return ", ".join([*parts, *([self.variant] if self.variant else [])])


def read_runs(study: Path) -> list[RunResult]:
    """Read all finished runs of a study, in order of their names, then of their settings.

    Raises
    ------
    InputError
        If there is no such folder, it holds no finished run, or a file of a finished run is broken.
    """
    study = Path(study)
    if not study.is_dir():
        if study.parent.is_dir():
            folders = [path.name for path in study.parent.iterdir() if (path / "report.html").exists()]
            raise unknown_name(f"study in {study.parent}", study.name, folders)
        raise InputError(f"{study}: no such folder; accepted: the folder of a study, such as runs/demo")
    finished = sorted(path.parent for path in study.glob("*/finished.json"))
    if not finished:
        there = len(unfinished_runs(study))
        raise InputError(f"{study}: found no finished run ({there} unfinished); accepted: at least one")
    # not of the hash in the name: that would put variants in another order whenever a setting is added
    runs = [read_run(folder) for folder in finished]
    return sorted(runs, key=lambda run: (run.folder.name.rpartition("-")[0], *flatten(run.config).items()))


def unfinished_runs(study: Path) -> list[str]:
    """Names of the runs of a study that have begun but not finished."""
    begun = sorted(path.parent for path in Path(study).glob("*/config.yaml"))
    return [folder.name for folder in begun if not (folder / "finished.json").exists()]


def read_run(folder: Path) -> RunResult:
    """Read one run; an `InputError` if a file is broken or nothing was tracked."""
    rows, _ = read_rows(folder / "results.jsonl")
    frame = pd.DataFrame(rows, columns=["name", "step", "value"])
    run = RunResult(read_config(folder / "config.yaml"), folder, frame)
    if not run.steps:
        raise InputError(f"{folder / 'results.jsonl'}: found no brain/all/r2, accepted: a tracked run")
    return run


def group_runs(runs: Sequence[RunResult]) -> dict[Group, list[RunResult]]:
    """Runs that differ in their seed only, together; untrained controls last, else by name.

    Nothing else is averaged over: runs of the same names that differ in another setting are variants.
    """
    settings = {run.folder: flatten(run.config) for run in runs}
    for run in runs:
        del settings[run.folder]["seed"]
    named: dict[tuple[str, str, str], list[RunResult]] = {}
    for run in sorted(runs, key=_order):
        config = run.config
        named.setdefault((config.backbone.name, config.task.name, config.method.name), []).append(run)
    groups: dict[Group, list[RunResult]] = {}
    for names, alike in named.items():
        keys = sorted({key for run in alike for key in settings[run.folder]})
        # what only one option of a section has says no more than the name of the option does
        values = {key: {settings[run.folder].get(key) for run in alike} - {None} for key in keys}
        varied = [key for key in keys if len(values[key]) > 1]
        for run in alike:
            here = settings[run.folder]
            variant = ", ".join(f"{key}={here[key]}" for key in varied if key in here)
            groups.setdefault(Group(*names, variant), []).append(run)
    return groups


def _order(run: RunResult) -> tuple[bool, str, str, str, int]:
    config = run.config
    return (
        config.backbone.untrained,
        config.backbone.name,
        config.task.name,
        config.method.name,
        config.seed,
    )


def compare_runs(runs: Sequence[RunResult]) -> pd.DataFrame:
    """Compare finished runs: mean and standard deviation over seeds of every column.

    Returns
    -------
    DataFrame
        Index: backbone, task, method, variant and seeds (how many). Columns: metric (its name in
        ``results.jsonl``), at ("start" or "end") and statistic: "value" is the mean over seeds, of a p value
        the largest; "sd" the sample's standard deviation, NaN for one seed; "low" and "high" the interval
        over subjects, a mean over seeds too, NaN for one subject. NaN where there is no value.
    """
    groups = group_runs(runs)
    columns = choose_columns(runs)
    records = []
    for alike in groups.values():
        record: dict[tuple[str, str, str], float] = {}
        for column in columns:
            key = (column.metric, column.at)
            record[*key, "value"], record[*key, "sd"] = column.summarise(find_all(alike, *key))
            for end in ("low", "high"):
                values = find_all(alike, f"{column.metric}_subjects_{end}", column.at)
                record[*key, end] = statistics.fmean(values) if values else float("nan")
        records.append(record)
    index = [(*group, len(alike)) for group, alike in groups.items()]
    return pd.DataFrame(
        records,
        index=pd.MultiIndex.from_tuples(index, names=[*Group._fields, "seeds"]),
        columns=pd.MultiIndex.from_tuples(records[0], names=["metric", "at", "statistic"]),
    )


def find_all(runs: Sequence[RunResult], metric: str, at: At) -> list[float]:
    """Values of a metric at the first or the last snapshot, of the runs that have one."""
    found = [run.find(metric, at)[2] for run in runs]
    return [value for value in found if value is not None]


def choose_columns(runs: Sequence[RunResult]) -> list[Column]:
    """The columns of the comparison of these runs; those that no run has a value of are left out."""
    probes = probe_tasks(runs)
    metrics: list[tuple[str, tuple[At, ...]]] = [
        *(
            (metric, ("start", "end"))
            for task, main in task_measures(runs)
            for metric in (f"task/{task}/{main}", f"probe/{task}/linear_{main}")
        ),
        *(
            (f"sequence/{scoring}/{name_measure(measure, of_auroc)}", ("end",))
            for scoring in SCORED_BY
            for measure in SEQUENCE
            for of_auroc in (False, True)
        ),
        # of a probe whose images have several labels there is the second of each pair only
        *((f"forgetting/{probe}/delta_lp{of}", ("end",)) for probe in probes for of in ("", "_auroc")),
        *((f"forgetting/{probe}/delta_zs{of}", ("end",)) for probe in probes for of in ("", "_auroc")),
        *CORTICAL,
    ]
    columns = [describe_column(metric, at) for metric, places in metrics for at in places]
    return [column for column in columns if find_all(runs, column.metric, column.at)]


def choose_subject_columns(runs: Sequence[RunResult]) -> list[Column]:
    """The columns of the comparison that single subjects of these runs have values of."""
    names = [(run, label) for run in runs for label in run.subjects]
    return [
        column
        for metric, places in CORTICAL
        for column in (describe_column(metric, at) for at in places)
        if any(find_all([run], name_of_subject(metric, label), column.at) for run, label in names)
    ]


def choose_measure(runs: Sequence[RunResult]) -> str:
    """The measure that stands for the task of these runs; `MAIN` where it is not one for all of them."""
    measures = {main_measure(task) for run in runs for task in tasks_in_order(run.config.task)}
    return measures.pop() if len(measures) == 1 else MAIN


def task_measures(runs: Sequence[RunResult]) -> list[tuple[str, str]]:
    """Tasks that these runs were fine-tuned on, and the measure that stands for each.

    Where every run has one task and not all the same, `TASK` stands for them all.
    """
    measures = {task.name: main_measure(task) for run in runs for task in tasks_in_order(run.config.task)}
    if len(measures) == 1 or any(len(run.tasks) > 1 for run in runs):
        return list(measures.items())
    return [(TASK, choose_measure(runs))]


def probe_tasks(runs: Sequence[RunResult]) -> list[str]:
    """Tasks on which forgetting was measured, in the order of the configuration."""
    probes = [probe for run in runs for probe in run.config.probes.names if probe not in run.tasks]
    return list(dict.fromkeys(probes))


def choose_interpolated(runs: Sequence[RunResult]) -> dict[str, str]:
    """Metrics of WiSE-FT's curves that say what is learned, forgotten and rewired, with their titles."""
    titles = {
        f"task/{task}/{measure}": f"{'Task' if task == TASK else task} {MEASURES[measure]}"
        for task, measure in task_measures(runs)
    }
    for delta, sign in (("delta_lp", "Δ_LP"), ("delta_zs", "Δ_ZS")):
        for probe in probe_tasks(runs):
            titles |= {f"forgetting/{probe}/{delta}{of}": f"{sign} {probe}" for of in ("", "_auroc")}
    titles |= {"rewiring/all/wasserstein_excess": "Excess rewiring", "brain/all/r2": "Brain R²"}
    found = {f"{INTERPOLATED}{metric}": title for metric, title in titles.items()}
    return {
        metric: title
        for metric, title in found.items()
        if any(len(run.curve(run.resolve(metric))) for run in runs)
    }


def columns_of(frame: pd.DataFrame) -> list[Column]:
    """The columns of what `compare_runs` returned."""
    pairs = dict.fromkeys((metric, at) for metric, at, _ in frame.columns)
    return [describe_column(metric, at) for metric, at in pairs]


def format_table(frame: pd.DataFrame) -> str:
    """Write what `compare_runs` returned for a terminal, in stacked tables of at most 120 characters.

    Numbers are means over seeds with their standard deviation, and with the interval over subjects if there
    are several; p is the largest over seeds.
    """
    groups = [Group(*index[:-1]) for index in frame.index]
    seeds = [index[-1] for index in frame.index]
    names = [group.label(groups) for group in groups]
    if max(seeds) > 1:
        names = [f"{name} ({n} seed{'s' * (n > 1)})" for name, n in zip(names, seeds, strict=True)]
    first = _pad(["", "backbone", *names])
    columns = columns_of(frame)
    parts = [
        _write_part(frame, above, [columns[place] for place in places])
        for above, places in group_by_heading(columns).items()
    ]
    tables = stack([GAP + len(part[0]) for part in parts], WIDTH - len(first[0]))
    blocks = [zip(first, *(parts[place] for place in places), strict=True) for places in tables]
    return "\n\n".join("\n".join((GAP * " ").join(line).rstrip() for line in block) for block in blocks)


def _write_part(frame: pd.DataFrame, above: str, columns: Sequence[Column]) -> list[str]:
    """Lines of the columns under one heading, all of one length."""
    cells = []
    for column in columns:
        numbers = (frame[column.metric, column.at, kind] for kind in ("value", "sd", "low", "high"))
        written = [
            f"{column.write(value, sd)} {column.write_interval(low, high)}".rstrip()
            for value, sd, low, high in zip(*numbers, strict=True)
        ]
        cells.append(_pad([column.heading, *written], right=True))
    lines = ["  ".join(line) for line in zip(*cells, strict=True)]
    return _pad([above, *lines])


def _pad(lines: Sequence[str], right: bool = False) -> list[str]:
    width = max(map(len, lines))
    return [line.rjust(width) if right else line.ljust(width) for line in lines]
