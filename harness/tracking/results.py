"""Rows of ``results.jsonl``, derived from the mappings and probes on disk, and sent to MLflow."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from harness.config import (
    Config,
    tasks_in_order,
)
from harness.finetuning import (
    METHODS,
    last_steps,
    plan_sequence,
)
from harness.mappings import (
    FAMILIES,
    load_mapping,
    load_split,
)
from harness.measures import (
    is_collapsed,
    measure_brain,
    name_agreement,
    name_probes,
    name_sequence,
    name_stability,
    split_name,
)
from harness.runs import (
    Brains,
    Inputs,
    Journal,
    Subject,
    probes_file,
    read_probes,
    read_rows,
    reference_file,
    split_file,
)
from harness.storage import read_arrays
from harness.tracking.across_subjects import combine_subjects
from harness.tracking.evidence import EvidenceFiles
from harness.tracking.subject_geometry import name_subject_ceilings
from harness.tracking.work_items import plan_work
from tasks import Task


def write_results(
    config: Config, run: Path, inputs: Inputs, steps: Sequence[int], logged: Collection[int] = ()
) -> None:
    """Derive the rows of all snapshots but the `logged` from mappings and probes on disk, and log them."""
    missing = [step for step in steps if step not in logged]
    with Journal(run / "results.jsonl") as journal:
        for step, values in derive_rows(config, run, inputs.brains, steps, missing):
            journal.log(step, values)
        if len(inputs.tasks) > 1:
            for step, values in derive_sequence(config, run, inputs.tasks, steps):
                journal.log(step, values)
            for step, values in derive_stability(config, run, inputs.tasks):
                journal.log(step, values)


class LiveRows:
    """Logs the rows of snapshots while others are still to be tracked; they are those of `write_results`.

    Parameters
    ----------
    config : Config
    run : Path
    brains : Brains

    Attributes
    ----------
    logged : set of int
        Snapshots with all of their rows in the journal.
    """

    def __init__(self, config: Config, run: Path, brains: Brains) -> None:
        self._config, self._run, self._brains = config, run, brains
        self._probed: set[int] = set()
        self.logged: set[int] = set()

    def __call__(self, steps: Sequence[int], mapped: Sequence[int]) -> None:
        """Log what is new.

        Parameters
        ----------
        steps : sequence of int
            All snapshots.
        mapped : sequence of int
            Those with all of their work done, refits included, for every subject.
        """
        probed = [step for step in steps if probes_file(self._run, step).exists()]
        if 0 not in probed:
            return
        tasks = [task.name for task in tasks_in_order(self._config.task)]
        if not (set(probed) - self._probed or (0 in mapped and set(mapped) - self.logged)):
            return  # opening a journal reads all of its rows
        with Journal(self._run / "results.jsonl") as journal:
            start = read_probes(self._run, 0)
            for step in probed:
                if step not in self._probed:
                    journal.log(step, name_probes(read_probes(self._run, step), start, *tasks))
            if 0 in mapped:
                for step in mapped:
                    if step not in self.logged:
                        journal.log(step, self._derive(step, mapped))
                        self.logged.add(step)
        self._probed.update(probed)

    def _derive(self, step: int, mapped: Sequence[int]) -> dict[str, float]:
        together = FAMILIES[self._config.mapping.family].fit_together is not None
        # speeds along a path need its other snapshots
        needed = mapped if together else sorted({0, step})
        ((_, values),) = derive_rows(self._config, self._run, self._brains, needed, [step])
        return values


def derive_sequence(
    config: Config, run: Path, tasks: Sequence[Task], steps: Sequence[int]
) -> Iterator[tuple[int, dict[str, float]]]:
    """Derive a sequence's measures at the end of every task reached so far, from probes on disk."""
    ends = last_steps(plan_sequence(config, [len(task.train) for task in tasks]))
    reached = [step for step in ends if step in steps]
    probes = {step: read_probes(run, step) for step in (0, *reached)}
    names = [task.name for task in tasks]
    made = METHODS[config.method.name].needs_texts or getattr(config.method, "head", "zero") != "zero"
    yield from name_sequence(probes, names, reached, made)


def derive_stability(
    config: Config, run: Path, tasks: Sequence[Task]
) -> Iterator[tuple[int, dict[str, float]]]:
    """Derive measures of the stability gap from the scores that training has logged; none without any."""
    curves: dict[str, dict[int, float]] = {}
    measured = {task.name: "auroc" if task.multi_label else "accuracy" for task in tasks}
    for row in read_rows(run / "results.jsonl")[0]:
        parts = split_name(row["name"])
        if parts.stage == "stability" and measured.get(parts.place) == parts.measure:
            curves.setdefault(parts.place, {})[row["step"]] = row["value"]
    if curves:
        ends = last_steps(plan_sequence(config, [len(task.train) for task in tasks]))
        several = [task.name for task in tasks if task.multi_label]
        yield from name_stability(curves, list(measured), ends, config.stability.window, several)


def derive_rows(
    config: Config,
    run: Path,
    brains: Brains,
    steps: Sequence[int],
    wanted: Collection[int] | None = None,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Derive the metrics of the `wanted` snapshots, or of all, from mappings and probes on disk.

    `steps` are the snapshots to read; they include 0.
    """
    chosen = [step for step in steps if wanted is None or step in wanted]
    probes = {step: read_probes(run, step) for step in {0, *chosen}}
    tasks = [task.name for task in tasks_in_order(config.task)]
    collapsed = {step for step in chosen if is_collapsed(probes[step], probes[0], tasks)}
    measured: dict[str, dict[int, dict[str, float]]] = {}
    for subject in brains.subjects:
        # first, as it is quick to name a broken file
        evidence = EvidenceFiles(subject, config.evidence, config.seed).name(chosen, collapsed)
        found = measure_subject(config, subject, brains, steps, chosen)
        joined = {step: found[step] | evidence[step] for step in chosen}
        measured[subject.label or "all"] = {
            step: values | name_agreement(values) for step, values in joined.items()
        }
    for step in chosen:
        rows = {label: values[step] for label, values in measured.items()}
        values = name_probes(probes[step], probes[0], *tasks) | join_subjects(rows)
        yield step, values | (name_subject_ceilings(config, brains) if step == 0 else {})


def measure_subject(
    config: Config,
    subject: Subject,
    brains: Brains,
    steps: Sequence[int],
    wanted: Collection[int] | None = None,
) -> dict[int, dict[str, float]]:
    """Derive one subject's metrics of the brain by step and name, from its mappings on disk.

    Parameters and `wanted` as for `derive_rows`.
    """
    items = plan_work(config, [subject], steps)
    mappings = {item.step: load_mapping(item.mapping) for item in items if not item.refit}
    refits = [load_mapping(item.mapping) for item in items if item.refit]
    brain = brains.load(subject)
    split = load_split(split_file(subject.folder), brain.stimulus_ids)
    references = {step: _read_reference(subject, step) for step in mappings}
    scored = brain.score_on(split.held_out)
    return dict(measure_brain(mappings, refits, scored, config.seed, wanted, references))


def _read_reference(subject: Subject, step: int) -> np.ndarray | None:
    """R² of the ridge regression beside a mapping; None of runs that an earlier version tracked."""
    file = reference_file(subject.folder, step)
    return read_arrays(file, file.stem).get("r2") if file.exists() else None


def join_subjects(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Join the metrics of one step by subject's label; those of a single subject stay as they are."""
    return combine_subjects(rows) if len(rows) > 1 else next(iter(rows.values()))
