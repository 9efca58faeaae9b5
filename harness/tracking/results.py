"""Rows of ``results.jsonl``, derived from the mappings and probes on disk, and sent to MLflow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

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
    load_mapping,
    load_split,
)
from harness.measures import (
    is_collapsed,
    measure_brain,
    name_probes,
    name_sequence,
)
from harness.runs import (
    Brains,
    Inputs,
    Journal,
    Subject,
    probes_file,
    split_file,
)
from harness.storage import read_json
from harness.tracking.across_subjects import combine_subjects
from harness.tracking.evidence import EvidenceFiles
from harness.tracking.work_items import plan_work
from tasks import Task


def write_results(config: Config, run: Path, inputs: Inputs, steps: Sequence[int]) -> None:
    """Derive every row from mappings and probes on disk, and log it."""
    with Journal(run / "results.jsonl") as journal:
        for step, values in derive_rows(config, run, inputs.brains, steps):
            journal.log(step, values)
        if len(inputs.tasks) > 1:
            for step, values in derive_sequence(config, run, inputs.tasks, steps):
                journal.log(step, values)


def write_probes(config: Config, run: Path, steps: Sequence[int]) -> None:
    """Log the rows of the probes that are on disk; those of step 0 come first."""
    done = [step for step in steps if probes_file(run, step).exists()]
    if 0 not in done:
        return
    tasks = [task.name for task in tasks_in_order(config.task)]
    start = read_json(probes_file(run, 0))
    with Journal(run / "results.jsonl") as journal:
        for step in done:
            journal.log(step, name_probes(read_json(probes_file(run, step)), start, *tasks))


def derive_sequence(
    config: Config, run: Path, tasks: Sequence[Task], steps: Sequence[int]
) -> Iterator[tuple[int, dict[str, float]]]:
    """Derive a sequence's measures at the end of every task reached so far, from probes on disk."""
    ends = last_steps(plan_sequence(config, [len(task.train) for task in tasks]))
    reached = [step for step in ends if step in steps]
    probes = {step: read_json(probes_file(run, step)) for step in (0, *reached)}
    names = [task.name for task in tasks]
    yield from name_sequence(probes, names, reached, METHODS[config.method.name].needs_texts)


def derive_rows(
    config: Config, run: Path, brains: Brains, steps: Sequence[int]
) -> Iterator[tuple[int, dict[str, float]]]:
    """Derive the metrics of every snapshot by name, from mappings and probes on disk."""
    probes = {step: read_json(probes_file(run, step)) for step in steps}
    tasks = [task.name for task in tasks_in_order(config.task)]
    collapsed = {step for step in steps if is_collapsed(probes[step], probes[0], tasks)}
    measured: dict[str, dict[int, dict[str, float]]] = {}
    for subject in brains.subjects:
        found = measure_subject(config, subject, brains, steps)
        evidence = EvidenceFiles(subject, config.evidence, config.seed).name(steps, collapsed)
        measured[subject.label or "all"] = {step: found[step] | evidence[step] for step in steps}
    for step in steps:
        rows = {label: values[step] for label, values in measured.items()}
        yield step, name_probes(probes[step], probes[0], *tasks) | join_subjects(rows)


def measure_subject(
    config: Config, subject: Subject, brains: Brains, steps: Sequence[int]
) -> dict[int, dict[str, float]]:
    """Derive one subject's metrics of the brain by step and name, from its mappings on disk."""
    items = plan_work(config, [subject], steps)
    mappings = {item.step: load_mapping(item.mapping) for item in items if not item.refit}
    refits = [load_mapping(item.mapping) for item in items if item.refit]
    brain = brains.load(subject)
    split = load_split(split_file(subject.folder), brain.stimulus_ids)
    return dict(measure_brain(mappings, refits, brain.score_on(split.held_out), config.seed))


def join_subjects(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Join the metrics of one step by subject's label; those of a single subject stay as they are."""
    return combine_subjects(rows) if len(rows) > 1 else next(iter(rows.values()))
