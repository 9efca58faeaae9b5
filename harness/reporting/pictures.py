"""The figures of a report over all its runs, with captions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    BESIDE,
    draw_alignment,
    draw_depths,
    draw_forgetting,
    draw_rewiring,
    find_alignment,
)
from harness.reporting.figures.drift import (
    DRAWN,
    draw_drift,
    find_layers,
)
from harness.reporting.figures.interpolation import draw_interpolation
from harness.reporting.figures.layers import (
    draw_layers,
    find_groups,
)
from harness.reporting.figures.panels import (
    Line,
    are_measured,
)
from harness.reporting.figures.sequences import (
    choose_scorings,
    draw_matrices,
)


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes
    ----------
    title, caption : str
        The caption says what to see.
    address : str
        The image as a data address.
    metrics : tuple of str
        Metrics drawn, by name in ``results.jsonl``.
    """

    title: str
    address: str
    caption: str
    metrics: tuple[str, ...]


def draw_pictures(
    lines: Sequence[Line],
    probes: Sequence[str],
    places: Sequence[str],
    areas: Mapping[str, Sequence[str]],
) -> Iterator[Picture]:
    """Draw the curves over all runs: `probes` by name, `places` and groups of `areas` in panel order."""
    runs = [run for line in lines for run in line.runs]
    main, sequences = choose_measure(runs), [line for line in lines if line.runs[0].task_ends]
    tasks = task_measures(runs) if any(len(run.tasks) > 1 for run in runs) else [(TASK, main)]
    seeded = any(len(line.runs) > 1 for line in lines)
    several = any(line.subjects for line in lines)
    seeds = " Lines are means over seeds, their bands one standard deviation." if seeded else ""
    over_images = "" if seeded else " Bands around Δ are its 95 % interval over test images."
    of_brain = seeds
    if several:
        of_brain = " Lines are means over seeds." if seeded else ""
        of_brain += (
            " With several subjects, thin lines are the subjects, thick lines their mean, and bands the "
            "mean’s 95 % interval over subjects, clipped at the panel."
        )
    floor = "one more refit of step 0 falls in 95 % of cases" + (", within a subject" if several else "")
    judged = ("verdict/<place>/kind",) if any(run.verdicts for run in runs) else ()
    shown = [kind for kind in PROBE_KINDS if kind.in_tables]
    if sequences:
        yield _picture_sequences(sequences, seeds)
    yield Picture(
        "Forgetting beside learning",
        embed_svg(draw_forgetting(lines, probes)),
        f"As {describe_metric(f'task/{TASK}/{main}').title} on the task rises, a curve below 0 means that "
        "the backbone’s features serve a task it was not fine-tuned on less well than before. All Δ share "
        "one axis."
        f"{' Dotted: the next task of a sequence starts.' if sequences else ''}{seeds}{over_images}",
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
                for kind in shown
                for probe in probes
                for change in (kind.delta, name_auroc(kind.delta))
            ),
        ),
    )
    if any(len(line.steps) > 1 for line in lines):
        ends = ("", *(f"_subjects_{end}" for end in ("low", "high"))) if several else ("", "_low", "_high")
        yield Picture(
            "Rewiring over the floor",
            embed_svg(draw_rewiring(lines, places)),
            "How much further voxels have moved between layers than a refit alone moves them: the whole "
            f"brain, then each region in order of the hierarchy, all on one axis. Shaded: where {floor}. "
            "An excess is no evidence of rewiring: noise alone moves voxels too, so the change of R² and of "
            "confidence stand below. Where there are verdicts, points are filled if a region is rewired. A "
            f"cross is a collapsed backbone.{of_brain}",
            (
                *(f"rewiring/<place>/wasserstein_excess{end}" for end in ends),
                *(f"rewiring/all/{change}" for change in BESIDE),
                *judged,
            ),
        )
    measures = [measure for measure in DRAWN if any(find_layers(line, measure) for line in lines)]
    if measures and any(len(line.steps) > 1 for line in lines):
        yield Picture(
            "Drift",
            embed_svg(draw_drift(lines)),
            "The last snapshot against step 0, layer by layer, whether the brain reads it or not. Left: how "
            "much of the similarity between stimuli is lost. Middle: how far weights have moved. Right: the "
            f"norm of the loss’s gradient, averaged over the steps since the previous snapshot.{seeds}",
            tuple(f"drift/<layer>/{measure}" for measure in measures),
        )
    if find_groups(lines):
        yield Picture(
            "What regions read",
            embed_svg(draw_layers(lines, places, areas)),
            "Mean share of every layer in what predicted voxels read, over optimizer steps; the first layer "
            "is at the bottom. Above: the whole brain, and early, middle and high areas (thirds of the ranks "
            "in the hierarchy). Below: every region in order of the hierarchy, on the same axes. Regions "
            "with fewer than 5 predicted voxels are blank."
            + (" Shares are means over seeds." if seeded else ""),
            ("selectors/<place>/layer/<layer>",),
        )
    yield _picture_alignment(lines, floor, of_brain)
    yield Picture(
        "Depth of every region, before and after",
        embed_svg(draw_depths(lines, places)),
        "Mean depth that a region’s voxels read from, in order of the hierarchy: open at step 0, filled at "
        "the last snapshot. Where there are verdicts, the bar between is strong if the region is rewired.",
        ("selectors/<place>/expected_depth", *judged),
    )
    interpolated = [line for line in lines if choose_interpolated(line.runs)]
    if interpolated:
        yield Picture(
            "Between pretrained and fine-tuned weights (WiSE-FT)",
            embed_svg(draw_interpolation(interpolated)),
            "Weights on the straight line from the pretrained backbone (α = 0) to the fine-tuned one "
            "(α = 1), measured like snapshots. Where accuracy holds and Δ is nearer to 0, less is forgotten "
            f"at no cost.{of_brain}",
            tuple(choose_interpolated([run for line in interpolated for run in line.runs])),
        )


def _picture_alignment(lines: Sequence[Line], floor: str, of_brain: str) -> Picture:
    """Draw alignment beside prediction; prediction alone where no ranks are known."""
    hierarchy = find_alignment(lines)
    if not hierarchy:
        return Picture(
            "How well the brain is predicted",
            embed_svg(draw_alignment(lines)),
            f"Share of the variance of responses to held-out stimuli.{of_brain}",
            ("brain/all/r2",),
        )
    return Picture(
        "How brain-like the order of layers is",
        embed_svg(draw_alignment(lines)),
        "Left: at 1, higher areas read from deeper layers; at 0, there is no order. Middle: how much deeper "
        "the highest area reads than the lowest. Right: how well the brain is predicted at all. Shaded: "
        f"where {floor}. Filled points on the left and in the middle have p < 0.05: maps as smooth as this "
        f"one rarely have such an order.{of_brain}",
        (
            *(f"{metric}{end}" for metric in hierarchy for end in ("", "_null_mean", "_null_sd")),
            *_existing(lines, *(f"{metric}_p" for metric in hierarchy)),
            "brain/all/r2",
        ),
    )


def _picture_sequences(lines: Sequence[Line], seeds: str) -> Picture:
    """Draw the matrices of runs on several tasks."""
    measures = {measure for line in lines for _, measure in task_measures(line.runs)}
    return Picture(
        "One task after another",
        embed_svg(draw_matrices(lines)),
        "How well every task (columns) is done when each task has ended (rows); framed: the task just "
        "trained. Below the frame is what later tasks leave of a task; above it, what the task gained from "
        "others before it was trained. A zero-initialised head cannot show such gains: its numbers above "
        f"the frame are chance.{' Numbers are means over seeds.' if seeds else ''}",
        tuple(
            f"task/<task>/{measure}" if scoring == "head" else f"probe/<task>/{scoring}_{measure}"
            for scoring in choose_scorings(lines)
            for measure in sorted(measures)
        ),
    )


def _existing(lines: Sequence[Line], *metrics: str) -> tuple[str, ...]:
    return tuple(metric for metric in metrics if are_measured(lines, metric))
