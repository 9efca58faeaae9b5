"""The comparison of a study's runs: a row per backbone, task and method, over seeds; a column per metric."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from harness.config import (
    flatten,
    main_measure,
    tasks_in_order,
)
from harness.measures import (
    CATALOGUE,
    INTERPOLATED,
    PROBE_KINDS,
    STAGES,
    At,
    Kind,
    Metric,
    mean_delta_interval,
    mean_score_interval,
    name_auroc,
    split_name,
)
from harness.reporting.columns import (
    MAIN,
    SHOWN_SCORINGS,
    TASK,
    Column,
    describe_column,
    write_range,
    write_title,
)
from harness.reporting.run_results import RunResult
from harness.reporting.verdicts import write_cell
from harness.runs import name_of_subject

OVER_ALPHA = (
    "rewiring/all/wasserstein_excess",
    "rewiring/all/r2_change",
    "rewiring/all/confidence_change",
    "brain/all/r2",
)
"""Metrics of the brain that curves of WiSE-FT show."""


class Group(NamedTuple):
    """What runs have in common that differ only in their seed."""

    backbone: str
    task: str
    method: str
    variant: str  # settings that differ from other groups of these names, such as finetune.lr=0.001

    def label(self, groups: Sequence[Group]) -> str:
        """Name that tells it from a study's other groups: the backbone, and whatever else differs."""
        parts = [self.backbone]
        parts += [self.task] if len({group.task for group in groups}) > 1 else []
        parts += [self.method] if len({group.method for group in groups}) > 1 else []
        return ", ".join([*parts, *([self.variant] if self.variant else [])])


def group_runs(runs: Sequence[RunResult]) -> dict[Group, list[RunResult]]:
    """Group runs that differ only in their seed; untrained controls last, else by name.

    Only seeds are averaged: runs of the same names that differ in another setting are variants.
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
        # a setting that only one option of a section has says no more than the option's name
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


def compare_runs(runs: Sequence[RunResult], columns: Sequence[Column] | None = None) -> pd.DataFrame:
    """Compare finished runs: mean and standard deviation of every column over seeds.

    Parameters
    ----------
    runs : sequence of RunResult
    columns : sequence of Column, optional
        By default those of `choose_columns`.

    Returns
    -------
    DataFrame
        Index: backbone, task, method, variant and seeds (their number). Columns: metric (its name in
        ``results.jsonl``), at ("start" or "end") and statistic: "value" is the mean over seeds, for p values
        the largest; "sd" the sample's standard deviation, NaN for one seed; "low" and "high" of scores and of
        forgetting the interval over test images and, with several seeds, over seeds (`mean_score_interval`,
        `mean_delta_interval`), else the
        interval over subjects or, for the excess of one subject, that of one more refit, a mean over seeds;
        "n_test" the number of test images, the smallest over seeds. NaN without a value. The value of a
        verdict is a text.
    """
    groups = group_runs(runs)
    columns = choose_columns(runs) if columns is None else columns
    records = []
    for alike in groups.values():
        record: dict[tuple[str, str, str], float | str] = {}
        for column in columns:
            key = (column.metric, column.at)
            record[*key, "value"], record[*key, "sd"] = summarise(column, alike)
            record[*key, "low"], record[*key, "high"] = find_interval(alike, *key)
            record[*key, "n_test"] = count_images(alike, *key)
        records.append(record)
    index = [(*group, len(alike)) for group, alike in groups.items()]
    return pd.DataFrame(
        records,
        index=pd.MultiIndex.from_tuples(index, names=[*Group._fields, "seeds"]),
        columns=pd.MultiIndex.from_tuples(records[0], names=["metric", "at", "statistic"]),
    )


def summarise(column: Column, runs: Sequence[RunResult]) -> tuple[float | str, float]:
    """Value of a column for runs that differ only in their seed, and its sd; a verdict is in words."""
    if column.form == "verdict":
        return write_cell([one for run in runs for one in run.verdicts.values()]), float("nan")
    return column.summarise(find_all(runs, column.metric, column.at))


def find_interval(runs: Sequence[RunResult], metric: str, at: At) -> tuple[float, float]:
    """Interval of a metric's mean over seeds, as `compare_runs` says; NaN without one."""
    nan = float("nan")
    if split_name(metric).stage in ("task", "probe"):
        places = [(run, run.find(metric, at)[1]) for run in runs if find_all([run], metric, at)]
        scores = [run.read_score(metric, step) for run, step in places]
        found = [score for score in scores if score is not None]
        return (mean_score_interval(found) if found and len(found) == len(scores) else None) or (nan, nan)
    if metric.startswith("forgetting/"):
        if len(runs) == 1:
            ends = [find_all(runs, f"{metric}_{end}", at) for end in ("low", "high")]
            return (ends[0][0], ends[1][0]) if all(ends) else (nan, nan)
        having = [run for run in runs if find_all([run], metric, at)]
        changes = [run.read_change(metric, at) for run in having]
        known = [change for change in changes if change is not None]
        return (mean_delta_interval(known) if known and len(known) == len(having) else None) or (nan, nan)
    endings = ["_subjects", *([""] if metric.endswith("_excess") else [])]
    for ending in endings:
        low, high = (find_all(runs, f"{metric}{ending}_{end}", at) for end in ("low", "high"))
        if low and high:
            return statistics.fmean(low), statistics.fmean(high)
    return nan, nan


def count_images(runs: Sequence[RunResult], metric: str, at: At) -> float:
    """Number of test images behind a score or its change, the smallest over seeds; NaN for other metrics."""
    name = split_name(metric)
    if name.stage not in ("task", "probe", "forgetting"):
        return float("nan")
    counts = [] if name.interpolated else find_all(runs, f"probe/{name.place}/n_test", at)
    return min(counts, default=float("nan"))


def range_of_images(runs: Sequence[RunResult], metric: str) -> str:
    """Numbers of test images behind a score or its change, over runs: ``200``, ``150–200``, or empty."""
    counts = [count_images([run], metric, "end") for run in runs]
    return write_range([count for count in counts if not pd.isna(count)])


def find_all(runs: Sequence[RunResult], metric: str, at: At) -> list[float]:
    """Values of a metric at the first or last snapshot, of the runs that have one."""
    found = [run.find(metric, at)[2] for run in runs]
    return [value for value in found if value is not None]


def choose_columns(runs: Sequence[RunResult]) -> list[Column]:
    """Choose the columns of a comparison of these runs: those that any run has a value for."""
    metrics: list[tuple[str, tuple[At, ...]]] = [
        *((metric, ("start", "end")) for task, main in task_measures(runs) for metric in _scores(task, main)),
        *(
            (metric.pattern.replace("<scoring>", scoring), metric.compared)
            for scoring in SHOWN_SCORINGS
            for metric in _compared("sequence")
        ),
        *((metric.pattern, metric.compared) for metric in _compared("stability")),
        # multi-label probes have the second of each pair only
        *(
            (f"forgetting/{probe}/{change}", ("end",))
            for kind in PROBE_KINDS
            if kind.in_tables
            for probe in probe_tasks(runs)
            for change in (kind.delta, name_auroc(kind.delta))
        ),
        *_brain_metrics(),
    ]
    columns = [describe_column(metric, at) for metric, places in metrics for at in places]
    return [
        column
        for column in columns
        if (
            any(run.verdicts for run in runs)
            if column.form == "verdict"
            else find_all(runs, column.metric, column.at)
        )
    ]


def _scores(task: str, main: str) -> list[str]:
    """Scores on a fine-tuned task: of its head, and of the probes that are shown on it."""
    probes = [f"probe/{task}/{kind.prefix}{main}" for kind in PROBE_KINDS if kind.on_task]
    return [f"task/{task}/{main}", *probes]


def _compared(stage: Kind) -> list[Metric]:
    return [metric for metric in CATALOGUE if metric.stage == stage and metric.compared]


def _brain_metrics() -> Iterator[tuple[str, tuple[At, ...]]]:
    """Metrics of the whole brain that are compared, and at which snapshots."""
    for kind, stage in STAGES.items():
        if stage.of_brain:
            for metric in _compared(kind):
                yield metric.pattern.replace("<place>", "all"), metric.compared


def choose_score_columns(runs: Sequence[RunResult]) -> list[Column]:
    """Choose columns for the scores of probes, before and after: what changes are made of."""
    measures = {task.name: main_measure(task) for run in runs for task in tasks_in_order(run.config.task)}
    names = [*measures, *probe_tasks(runs)]
    columns = [
        describe_column(f"probe/{name}/{kind.prefix}{measure}", at)
        for name in names
        for kind in PROBE_KINDS
        if not (name in measures and kind.on_task)  # stands in the comparison
        for measure in ("accuracy", "auroc")
        for at in ("start", "end")
    ]
    several = {name for run in runs for name in run.multi_label}
    return [
        column
        for column in columns
        if find_all(runs, column.metric, column.at)
        and column.metric.endswith("auroc") == (split_name(column.metric).place in several)
    ]


def choose_subject_columns(runs: Sequence[RunResult]) -> list[Column]:
    """Choose the columns of the comparison that single subjects of these runs have values for."""
    names = [(run, label) for run in runs for label in run.subjects]
    return [
        column
        for metric, places in _brain_metrics()
        for column in (describe_column(metric, at) for at in places)
        if any(find_all([run], name_of_subject(metric, label), column.at) for run, label in names)
    ]


def choose_measure(runs: Sequence[RunResult]) -> str:
    """Main measure of the tasks of these runs; `MAIN` if they differ."""
    measures = {main_measure(task) for run in runs for task in tasks_in_order(run.config.task)}
    return measures.pop() if len(measures) == 1 else MAIN


def task_measures(runs: Sequence[RunResult]) -> list[tuple[str, str]]:
    """Tasks that these runs were fine-tuned on, each with its main measure.

    If every run has one task but not all the same, `TASK` stands for all.
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
    """Choose the metrics of WiSE-FT's curves that are shown, with their titles."""
    titles = {
        metric: write_title(metric)
        for metric in (f"task/{task}/{measure}" for task, measure in task_measures(runs))
    }
    for kind in PROBE_KINDS:
        if kind.in_tables:
            for probe in probe_tasks(runs):
                metrics = (f"forgetting/{probe}/{one}" for one in (kind.delta, name_auroc(kind.delta)))
                titles |= dict.fromkeys(metrics, f"{kind.symbol} {probe}")
    titles |= {metric: write_title(metric) for metric in OVER_ALPHA}
    found = {f"{INTERPOLATED}{metric}": title for metric, title in titles.items()}
    return {
        metric: title
        for metric, title in found.items()
        if any(len(run.curve(run.resolve(metric))) for run in runs)
    }


def columns_of(frame: pd.DataFrame) -> list[Column]:
    """Columns of a frame from `compare_runs`; headings of scores and changes say how many test images."""
    pairs = dict.fromkeys((metric, at) for metric, at, *_ in frame.columns)
    return [
        describe_column(metric, at).with_images(frame[metric, at, "n_test"].dropna().tolist())
        for metric, at in pairs
    ]
