"""The pictures of a report over all of its runs, each with what there is to see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.measures import (
    PROBE_KINDS,
    name_auroc,
)
from harness.plot import embed_svg
from harness.reporting.columns import (
    TASK,
    describe_metric,
)
from harness.reporting.comparison import (
    choose_interpolated,
    choose_measure,
    task_measures,
)
from harness.reporting.figures.curves import (
    draw_alignment,
    draw_depths,
    draw_forgetting,
    draw_rewiring,
)
from harness.reporting.figures.drift import (
    DRAWN,
    draw_drift,
    find_layers,
)
from harness.reporting.figures.interpolation import draw_interpolation
from harness.reporting.figures.panels import (
    Line,
    are_measured,
)
from harness.reporting.figures.sequences import (
    choose_scorings,
    draw_matrices,
)

SUBJECT_ENDS = tuple(f"_excess_subjects_{end}" for end in ("low", "high", "p", "p_fdr"))


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes
    ----------
    title, caption : str
        The caption says what to see.
    address : str
        Of the image, which lies in the page.
    metrics : tuple of str
        What was drawn, by name in ``results.jsonl``.
    """

    title: str
    address: str
    caption: str
    metrics: tuple[str, ...]


def draw_pictures(lines: Sequence[Line], probes: Sequence[str], places: Sequence[str]) -> Iterator[Picture]:
    """Curves over all runs."""
    runs = [run for line in lines for run in line.runs]
    main, sequences = choose_measure(runs), [line for line in lines if line.runs[0].task_ends]
    tasks = task_measures(runs) if any(len(run.tasks) > 1 for run in runs) else [(TASK, main)]
    seeded = any(len(line.runs) > 1 for line in lines)
    several = any(line.subjects for line in lines)
    seeds = " Lines are means over seeds, bands along them one standard deviation." if seeded else ""
    of_brain = seeds
    if several:
        of_brain = " Lines are means over seeds." if seeded else ""
        of_brain += (
            " Of several subjects, thin lines are the subjects, thick ones their mean, and bands along these "
            "its 95 % interval over subjects, cut off where it leaves the panel."
        )
    floor = "one more refit of step 0 falls in 95 % of cases" + (", in a subject" if several else "")
    if sequences:
        yield _picture_sequences(sequences, seeds)
    yield Picture(
        "Forgetting beside learning",
        embed_svg(draw_forgetting(lines, probes)),
        f"While {describe_metric(f'task/{TASK}/{main}').title} on the task rises, a curve below 0 says that "
        "the backbone’s features serve a task that was not fine-tuned less well than before. All Δ share one "
        "axis."
        f"{' Dotted: the next task of a sequence begins.' if sequences else ''}{seeds}",
        _existing(
            lines,
            *(f"task/{task}/{measure}" for task, measure in tasks),
            *(
                f"probe/{task}/{kind.prefix}{measure}"
                for kind in PROBE_KINDS
                if kind.on_task
                for task, measure in tasks
            ),
            *(
                f"forgetting/{probe}/{change}"
                for kind in PROBE_KINDS
                if kind.in_tables
                for probe in probes
                for change in (kind.delta, name_auroc(kind.delta))
            ),
        ),
    )
    if any(len(line.steps) > 1 for line in lines):
        ends = ("_excess", *SUBJECT_ENDS) if several else ("_excess", "_excess_high", "_p", "_p_fdr")
        yield Picture(
            "Rewiring over the floor",
            embed_svg(draw_rewiring(lines, places)),
            "How much further voxels have moved between layers than a refit alone moves them: the whole "
            f"brain, then each region in the order of the hierarchy, all on one axis. Shaded: where {floor}. "
            f"Filled points have p < 0.05{' over subjects' if several else ''}, in regions after "
            f"correction for their number; open ones are no evidence of rewiring.{of_brain}",
            tuple(f"rewiring/<place>/wasserstein{end}" for end in ends),
        )
    measures = [measure for measure in DRAWN if any(find_layers(line, measure) for line in lines)]
    if measures and any(len(line.steps) > 1 for line in lines):
        yield Picture(
            "Drift inside",
            embed_svg(draw_drift(lines)),
            "The last snapshot against step 0, layer by layer, whoever reads it. Left: how little of the "
            "stimuli’s similarities is kept. Middle: how far weights have moved. Right: how steep "
            f"the loss was there, a mean over the steps since the snapshot before.{seeds}",
            tuple(f"drift/<layer>/{measure}" for measure in measures),
        )
    hierarchy = ("hierarchy", "hierarchy_null_mean", "hierarchy_null_sd")
    yield Picture(
        "How brain-like the order of layers is",
        embed_svg(draw_alignment(lines)),
        "Left: 1 means that the higher an area, the deeper the layer it reads from; 0, no order. Shaded: "
        f"where {floor}. Right: how well the brain is predicted at all.{of_brain}",
        (*(f"alignment/all/{name}" for name in hierarchy), "brain/all/r2"),
    )
    yield Picture(
        "Depth of every region, before and after",
        embed_svg(draw_depths(lines, places)),
        "Mean depth that a region’s voxels read from, in the order of the hierarchy: open at step 0, filled "
        "at the last snapshot. What joins them is strong where the shift stands out of the floor (p < 0.05"
        f"{' over subjects' if several else ''}, corrected for the number of regions).",
        (
            "selectors/<place>/expected_depth",
            f"rewiring/<place>/depth_shift_{'excess_subjects_' if several else ''}p_fdr",
        ),
    )
    interpolated = [line for line in lines if choose_interpolated(line.runs)]
    if interpolated:
        yield Picture(
            "Between pretrained and fine-tuned weights (WiSE-FT)",
            embed_svg(draw_interpolation(interpolated)),
            "Weights on the straight line from the pretrained backbone’s (α = 0) to the fine-tuned ones "
            "(α = 1), measured like snapshots: where accuracy is kept and Δ is nearer to 0, less is "
            f"forgotten at no cost. Open points of excess rewiring have p ≥ 0.05.{of_brain}",
            tuple(choose_interpolated([run for line in interpolated for run in line.runs])),
        )


def _picture_sequences(lines: Sequence[Line], seeds: str) -> Picture:
    """The matrices of runs on several tasks."""
    measures = {measure for line in lines for _, measure in task_measures(line.runs)}
    return Picture(
        "One task after another",
        embed_svg(draw_matrices(lines)),
        "How well every task (columns) is done when each task has ended (rows); framed: the task that has "
        "just been trained. Down a column, from the frame on, is what later tasks leave of it; above the "
        "frame, what it gained from others before it was trained, which a head that starts at zero cannot "
        f"show: its numbers there are chance.{seeds.replace('Lines', 'Numbers').split(', bands')[0]}"
        f"{'.' if seeds else ''}",
        tuple(
            f"task/<task>/{measure}" if scoring == "head" else f"probe/<task>/{scoring}_{measure}"
            for scoring in choose_scorings(lines)
            for measure in sorted(measures)
        ),
    )


def _existing(lines: Sequence[Line], *metrics: str) -> tuple[str, ...]:
    return tuple(metric for metric in metrics if are_measured(lines, metric))
