"""The figures of a report over all its runs, with captions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.measures import (
    PROBE_KINDS,
    TOLERANCE,
    name_auroc,
)
from harness.plot import embed_svg
from harness.reporting.anchoring import find_anchorings
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
    draw_forgetting,
    draw_rewiring,
    find_alignment,
)
from harness.reporting.figures.depths import draw_depths
from harness.reporting.figures.drift import (
    draw_drift,
    find_measures,
)
from harness.reporting.figures.geometry import (
    MOST_LINES,
    draw_geometry,
    have_geometry,
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
from harness.reporting.figures.robustness import (
    draw_robustness,
    draw_shifts,
)
from harness.reporting.figures.sequences import (
    choose_scorings,
    draw_matrices,
)
from harness.reporting.figures.stability import (
    draw_gaps,
    list_evaluated,
)
from harness.reporting.figures.trade_off import draw_trade_offs
from harness.reporting.robustness import (
    judge_robustness,
    measured_shifts,
)
from harness.reporting.run_results import RunResult

DRIFT = {
    "cka_unbiased": "1 − CKA is how much of the similarity between stimuli is lost",
    "weight_distance_relative": "weight distance is how far weights have moved",
    "grad_norm": "gradient norm is that of the loss, on a logarithmic axis, averaged over the steps since "
    "the previous snapshot",
}
"""What panels of drift show."""


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
    sequences = [line for line in lines if line.runs[0].task_ends]
    seeded = any(len(line.runs) > 1 for line in lines)
    several = any(line.subjects for line in lines)
    seeds = " Lines are means over seeds, their bands one standard deviation." if seeded else ""
    over_images = "" if seeded else " Bands are 95 % intervals over test images: of accuracies, Wilson’s."
    moved = any(len(line.steps) > 1 for line in lines)
    of_brain = seeds
    if several:
        of_brain = " Lines are means over seeds." if seeded else ""
        of_brain += (
            " With several subjects, thin lines are the subjects, thick lines their mean, and bands the "
            "mean’s 95 % interval over subjects, clipped at the panel."
        )
    floor = "one more refit of step 0 falls in 95 % of cases" + (", within a subject" if several else "")
    judged = ("verdict/<place>/kind",) if any(run.verdicts for run in runs) else ()
    if sequences:
        yield _picture_sequences(sequences, seeds)
        evaluated = [line for line in sequences if list_evaluated(line)]
        if evaluated:
            yield _picture_gaps(evaluated, seeds)
    # at step 0 alone, every change is 0 by definition
    if moved:
        yield _picture_forgetting(lines, probes, seeds + over_images)
    yield from _picture_anchors(runs)
    yield from _picture_shifts(lines, seeds, moved)
    if moved and are_measured(lines, "rewiring/all/wasserstein_excess"):
        ends = ("", *(f"_subjects_{end}" for end in ("low", "high"))) if several else ("", "_low", "_high")
        yield Picture(
            "Rewiring over the floor",
            embed_svg(draw_rewiring(lines, places)),
            "How much further voxels have moved between layers than a refit alone moves them: the whole "
            f"brain, then each region in order of the hierarchy, all on one axis; ΔR² and Δconfidence have "
            f"axes of their own. Shaded: where {floor}; a shade that reaches the edge goes on. "
            "An excess is no evidence of rewiring: noise alone moves voxels too, so the change of R² and of "
            "confidence stand below. Where there are verdicts, points are filled if a region is rewired. A "
            f"cross is a collapsed backbone.{of_brain}",
            (
                *(f"rewiring/<place>/wasserstein_excess{end}" for end in ends),
                *(f"rewiring/all/{change}" for change in BESIDE),
                *judged,
            ),
        )
    measures = find_measures(lines)
    if measures and moved:
        yield Picture(
            "Drift",
            embed_svg(draw_drift(lines)),
            "The last snapshot against step 0, layer by layer, whether the brain reads it or not: "
            f"{'; '.join(DRIFT[measure] for measure in measures)}.{seeds}",
            tuple(f"drift/<layer>/{measure}" for measure in measures),
        )
    if find_groups(lines):
        yield Picture(
            "What regions read",
            embed_svg(draw_layers(lines, places, areas)),
            "Mean share of every layer in what predicted voxels read, over optimizer steps; the first layer "
            "is at the bottom. Above: the whole brain, and early, middle and high areas (thirds of the ranks "
            "in the hierarchy). Below: every region in order of the hierarchy, on the same axes. All "
            "runs share the axis of steps, so a shorter run ends before it; layers are each network’s own."
            + (" Dotted: the next task of a sequence starts." if sequences else "")
            + (" Shares are means over seeds." if seeded else ""),
            ("selectors/<place>/layer/<layer>",),
        )
    yield from _picture_geometry(lines, places, seeds)
    yield _picture_alignment(lines, floor, of_brain)
    if any(are_measured(lines, f"selectors/{place}/expected_depth") for place in places):
        yield _picture_depths(lines, places, floor, judged, moved)
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


def _picture_geometry(lines: Sequence[Line], places: Sequence[str], seeds: str) -> Iterator[Picture]:
    measured = have_geometry(lines, places)
    if measured:
        left_out = f" The first {MOST_LINES} lines." if len(measured) > MOST_LINES else ""
        yield Picture(
            "Geometry beside selectors",
            embed_svg(draw_geometry(measured, places)),
            "Representational similarity analysis (RSA): how far the same pairs of images lie apart in a "
            "region and in a layer. Nothing is fitted, so RSA misses what a region reads from few channels "
            "or places: on brains of known wiring it prefers the right layer for 40 to 50 % of regions "
            "(docs/geometry.md). "
            "Agreement: Spearman correlation, over layers, of RSA with the selectors’ shares, mean over "
            f"regions; both use the same responses.{left_out}{seeds}",
            ("rsa/<roi>/layer/<layer>", *_existing(lines, "rsa/all/layers_agreement")),
        )


def _picture_anchors(runs: Sequence[RunResult]) -> Iterator[Picture]:
    """Draw accuracy against forgetting over λ, of a study that anchors networks at the brain."""
    found = find_anchorings(runs)
    if found:
        tasks = dict.fromkeys(run.tasks[-1] for run in runs)
        yield Picture(
            "The brain as an anchor",
            embed_svg(draw_trade_offs(found)),
            "Task accuracy against Δ_LP as the weight λ of a penalty rises from 0 (no penalty): up and to "
            "the right is better. Large points are means over seeds with their 95 % intervals, faint ones "
            f"single seeds. Dotted: {100 * TOLERANCE:g} point below the accuracy without a penalty.",
            (
                *(f"task/{task}/{choose_measure(runs)}" for task in tasks),
                "forgetting/<probe>/delta_lp",
            ),
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
        "Hierarchy alignment: at 1, higher areas read from deeper layers; at 0, there is no order. Slope: "
        "how much deeper the highest area reads than the lowest. Brain R²: how well the brain is predicted. "
        f"Shaded: where {floor}."
        + (
            " Filled points of alignment and slope have p < 0.05: maps as smooth as this one rarely have "
            "such an order."
            if any(are_measured(lines, f"{metric}_p") for metric in hierarchy)
            else ""
        )
        + of_brain,
        (
            *(f"{metric}{end}" for metric in hierarchy for end in ("", "_null_mean", "_null_sd")),
            *_existing(lines, *(f"{metric}_p" for metric in hierarchy)),
            "brain/all/r2",
        ),
    )


def _picture_forgetting(lines: Sequence[Line], probes: Sequence[str], bands: str) -> Picture:
    """Draw scores on the task beside changes of probes; scores alone where nothing was probed."""
    runs = [run for line in lines for run in line.runs]
    main, sequences = choose_measure(runs), any(run.task_ends for run in runs)
    tasks = task_measures(runs) if any(len(run.tasks) > 1 for run in runs) else [(TASK, main)]
    changes = (
        f"As {describe_metric(f'task/{TASK}/{main}').title} on the task rises, a curve below 0 means "
        "that the backbone’s features serve a task it was not fine-tuned on less well than before. All Δ "
        "share one axis, and so do scores."
    )
    return Picture(
        "Forgetting beside learning" if probes else "Learning",
        embed_svg(draw_forgetting(lines, probes)),
        (changes if probes else "Scores on the fine-tuned task.")
        + f"{' Dotted: the next task of a sequence starts.' if sequences else ''}{bands}",
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


def _picture_depths(
    lines: Sequence[Line], places: Sequence[str], floor: str, judged: tuple[str, ...], moved: bool
) -> Picture:
    """Draw depths of regions at both ends, and their shifts enlarged."""
    metrics = ("selectors/<place>/expected_depth",)
    if not moved:
        return Picture(
            "Depth of every region",
            embed_svg(draw_depths(lines, places)),
            "Mean depth that a region’s voxels read from at step 0, in order of the hierarchy.",
            metrics,
        )
    ends = [line for line in lines if any(are_measured([line], f"rewiring/{p}/depth_shift") for p in places)]
    zoomed = (
        " The panel beside it enlarges the shift: the change of depth of predicted voxels since the mean of "
        f"all fits of step 0, positive towards deeper layers. Grey bars: where {floor}; a point outside its "
        "bar has moved further than a refit, and a bar that reaches the edge goes on. Every axis of "
        "shifts says what it covers."
        if ends
        else ""
    )
    return Picture(
        "Depth of every region, before and after",
        embed_svg(draw_depths(lines, places)),
        "Mean depth that a region’s voxels read from, in order of the hierarchy: open at step 0, filled at "
        "the last snapshot."
        + (" The bar between is strong if the region’s verdict is rewired." if judged else "")
        + zoomed,
        (*metrics, *(("rewiring/<place>/depth_shift",) if ends else ()), *judged),
    )


def _picture_shifts(lines: Sequence[Line], seeds: str, moved: bool) -> Iterator[Picture]:
    """Draw accuracy under shifts over steps, and effective robustness of a study with enough models."""
    runs = [run for line in lines for run in line.runs]
    shifted = measured_shifts(runs)
    if shifted and moved:
        yield Picture(
            "Accuracy under distribution shift",
            embed_svg(draw_shifts(lines)),
            "Accuracy of the linear probe, fitted on clean training images of each snapshot, on shifted test "
            "images. mCE: the mean corruption error against step 0 of the same run; below 1, fewer errors "
            f"than before fine-tuning.{seeds}",
            _existing(
                lines,
                *(f"shift/{task}/{shift}/accuracy" for task, shift in shifted),
                *(f"shift/{task}/{shift}/corruption_error" for task, shift in shifted),
            ),
        )
    judged = judge_robustness(lines)
    if judged:
        yield Picture(
            "Effective robustness",
            embed_svg(draw_robustness(lines, judged)),
            "Every point is a snapshot’s linear probe, clean and under the shift, on logit axes. Line: least "
            "squares over all trained networks; effective robustness is the height above the line that the "
            "other networks make, and bars its 95 % interval over test images and, with enough networks, "
            "over the networks of the line. Dotted: as accurate as on clean images.",
            tuple(
                f"shift/{one.task}/{one.shift}/{measure}"
                for one in judged
                for measure in ("clean_accuracy", "accuracy")
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


def _picture_gaps(lines: Sequence[Line], seeds: str) -> Picture:
    """Draw scores of earlier tasks around the start of each task, of runs that were evaluated there."""
    return Picture(
        "The stability gap",
        embed_svg(draw_gaps(lines)),
        "Scores of earlier tasks’ heads around the step at which another task starts (dotted): a row for "
        "each earlier task, a column for each start. A dip that recovers is a stability gap (De Lange et al. "
        "2023), which scores at the ends of tasks do not show; what does not recover is forgotten. Crosses "
        f"mark the lowest score after each start.{seeds}",
        tuple(dict.fromkeys(metric for line in lines for metric in list_evaluated(line).values())),
    )


def _existing(lines: Sequence[Line], *metrics: str) -> tuple[str, ...]:
    return tuple(metric for metric in metrics if are_measured(lines, metric))
