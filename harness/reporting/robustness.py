"""Accuracy under shift in a study: which shifts, their columns, and effective robustness of its models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.config import (
    ALL_CORRUPTIONS,
    CORRUPTION_GROUPS,
    CORRUPTIONS,
)
from harness.measures import (
    At,
    ModelHits,
    Robustness,
    Score,
    effective_robustness,
    read_score,
    read_shift_hits,
    split_name,
)
from harness.reporting.columns import (
    Column,
    describe_column,
)
from harness.reporting.comparison import find_all
from harness.reporting.figures.panels import Line
from harness.reporting.run_results import RunResult

SCORING = "linear"
"""Effective robustness is that of the linear probe, which every snapshot has."""
FEWEST_MODELS = 3


@dataclass(frozen=True)
class Model:
    """A snapshot as a point among others.

    Attributes
    ----------
    line : Line
    run : RunResult
    step : int
    after : bool
        Whether it is fine-tuned.
    """

    line: Line
    run: RunResult
    step: int
    after: bool

    @property
    def name(self) -> str:
        """Its name in tables."""
        seed = f", seed {self.run.config.seed}" if len(self.line.runs) > 1 else ""
        return f"{self.line.label}{seed}, {'after' if self.after else 'before'}"


@dataclass(frozen=True)
class Judged:
    """Effective robustness under one shift.

    Attributes
    ----------
    task, shift : str
    models : tuple of Model
    found : tuple of Robustness, one per model
        Against the shift's own clean accuracy.
    sets : tuple of str
        Further in-distribution sets that are controlled for.
    controlled : tuple of Robustness
        With these sets too; empty without any, or with too few models.
    """

    task: str
    shift: str
    models: tuple[Model, ...]
    found: tuple[Robustness, ...]
    sets: tuple[str, ...] = ()
    controlled: tuple[Robustness, ...] = ()


def measured_shifts(runs: Sequence[RunResult], groups: bool = False) -> list[tuple[str, str]]:
    """Tasks and shifts of these runs; single corruptions, and groups, only where they stand alone."""
    names = dict.fromkeys(name for run in runs for name in run.names if name.startswith("shift/"))
    parts = [split_name(name) for name in names]
    found = dict.fromkeys((one.place, str(one.shift)) for one in parts if one.measure == "accuracy")

    def shown(task: str, shift: str) -> bool:
        if shift in CORRUPTION_GROUPS:
            return groups or (task, ALL_CORRUPTIONS) not in found
        group = next((name for name, members in CORRUPTION_GROUPS.items() if shift in members), None)
        return group is None or not {(task, group), (task, ALL_CORRUPTIONS)} & found.keys()

    return [pair for pair in found if shown(*pair)]


def choose_shift_columns(runs: Sequence[RunResult]) -> list[Column]:
    """Columns of accuracy under shift, its relative drop, and the corruption error."""
    shown: tuple[tuple[str, At], ...] = (
        ("accuracy", "start"),
        ("accuracy", "end"),
        ("clean_accuracy", "end"),
        ("relative_drop", "end"),
        ("corruption_error", "end"),
    )
    columns = [
        describe_column(f"shift/{task}/{shift}/{measure}", at)
        for task, shift in measured_shifts(runs)
        for measure, at in shown
        if not (shift in CORRUPTIONS and measure == "corruption_error")
    ]
    return [column for column in columns if find_all(runs, column.metric, column.at)]


def judge_robustness(lines: Sequence[Line]) -> list[Judged]:
    """Effective robustness under every shift with three models or more.

    Models are the first and last snapshots of all runs. Untrained networks are judged, but shape no line.
    """
    runs = [run for line in lines for run in line.runs]
    judged = []
    for task, shift in measured_shifts(runs):
        pairs = _collect(lines, task, shift)
        if len(pairs) < FEWEST_MODELS:
            continue
        hits = [one for _, one in pairs]
        found = effective_robustness(hits)
        if not found:
            continue
        models = tuple(model for model, _ in pairs)
        sets, controlled = _control(pairs, task)
        judged.append(Judged(task, shift, models, tuple(found), sets, controlled))
    return judged


def _collect(lines: Sequence[Line], task: str, shift: str) -> list[tuple[Model, ModelHits]]:
    found: list[tuple[Model, ModelHits]] = []
    known: set[tuple[str, bytes]] = set()
    for line in lines:
        for run in line.runs:
            for step in dict.fromkeys((run.steps[0], run.steps[-1])):
                probes = run.probes(step)
                read = None if probes is None else read_shift_hits(probes, task, shift, SCORING)
                if read is None:
                    continue
                record, parts, clean = read
                model = Model(line, run, step, step > run.steps[0])
                shifted = tuple(part.right for part in parts)
                own = (line.backbone or line.label, np.concatenate([clean.right, *shifted]).tobytes())
                # runs that differ in their method share a pretrained network
                if not model.after and own in known:
                    continue
                if not model.after:
                    known.add(own)
                paired = all(len(part) == len(clean.right) for part in shifted)
                hits = ModelHits(
                    model.name,
                    (clean.right,),
                    shifted,
                    (f"clean {record['hash']}", str(record["hash"])),
                    paired,
                    not run.config.backbone.untrained,
                )
                found.append((model, hits))
    return found


def _control(
    pairs: Sequence[tuple[Model, ModelHits]], task: str
) -> tuple[tuple[str, ...], tuple[Robustness, ...]]:
    """Add the tasks that the models were fine-tuned on as in-distribution sets."""
    tuned = dict.fromkeys(name for model, _ in pairs for name in model.run.tasks if name != task)
    sets: list[str] = []
    scores: list[list[Score]] = []
    for name in tuned:
        found = [_read(model, name) for model, _ in pairs]
        whole = [score for score in found if score is not None]
        if len(whole) == len(pairs):
            sets.append(name)
            scores.append(whole)
    if not sets:
        return (), ()
    more = [
        ModelHits(
            hits.name,
            (*hits.clean, *(of_set[place].right.right for of_set in scores)),  # type: ignore[union-attr]
            hits.shifted,
            (hits.images[0], *(of_set[place].images for of_set in scores), hits.images[-1]),
            hits.paired,
            hits.baseline,
        )
        for place, (_, hits) in enumerate(pairs)
    ]
    return tuple(sets), tuple(effective_robustness(more))


def _read(model: Model, task: str) -> Score | None:
    probes = model.run.probes(model.step)
    found = None if probes is None else read_score(probes, task, SCORING)
    return found if found is not None and found.measure == "accuracy" else None


def write_robustness(judged: Judged) -> dict[str, Any]:
    """Cells of the table of one shift, a row per model."""
    headings = ["model", "clean", "shifted", "expected", "effective robustness"]
    if judged.controlled:
        headings.append(f"controlled for {', '.join(judged.sets)} too")
    of = {one.name: one for one in judged.controlled}
    rows = []
    for one in judged.found:
        row = [one.name, f"{one.clean[0]:.3f}", f"{one.shifted:.3f}", f"{one.expected:.3f}", _write(one)]
        if judged.controlled:
            row.append(_write(of[one.name]) if one.name in of else "–")
        rows.append(row)
    return {"title": f"{judged.task}, {judged.shift}", "headings": headings, "rows": rows}


def _write(one: Robustness) -> str:
    text = f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
    return text.replace("-", "−")
