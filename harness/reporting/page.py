"""The report: a study's comparison, curves and maps in one self-contained HTML file.

Finished runs are shown, unfinished ones listed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.brains import (
    Brain,
    load_brain,
)
from harness.config import BrainConfig
from harness.mappings import Mapping, load_mapping
from harness.measures import (
    N_CLUSTERS,
    STAGES,
    Verdict,
)
from harness.plot import (
    DepthShift,
    choose_colours,
    choose_limit,
    draw_cluster_maps,
    draw_layer_maps,
    embed_png,
    embed_svg,
    label_voxels,
    measure_shift,
)
from harness.reporting.anchoring import find_anchorings, write_anchoring
from harness.reporting.columns import (
    Column,
    describe_metric,
    group_by_heading,
    stack,
    write_range,
)
from harness.reporting.comparison import (
    Group,
    choose_score_columns,
    choose_subject_columns,
    columns_of,
    compare_runs,
    count_images,
    find_all,
    find_interval,
    group_runs,
    probe_tasks,
)
from harness.reporting.contrast import (
    Contrast,
    answer_questions,
)
from harness.reporting.contrast_text import (
    explain,
    summarise,
    write_sections,
)
from harness.reporting.figures.curves import find_alignment
from harness.reporting.figures.grafts import draw_grafts
from harness.reporting.figures.panels import (
    DASHES,
    MARKERS,
    Line,
)
from harness.reporting.grafts import (
    Grafted,
    read_grafted,
    write_tables,
    write_verdict,
)
from harness.reporting.missing import list_missing
from harness.reporting.page_brains import (
    leave_rows_out,
    name_areas,
    order_places,
)
from harness.reporting.page_templates import load_template
from harness.reporting.pictures import draw_pictures
from harness.reporting.robustness import (
    choose_shift_columns,
    judge_robustness,
    write_robustness,
)
from harness.reporting.run_results import (
    RunResult,
    read_runs,
    unfinished_runs,
)
from harness.reporting.verdicts import (
    write_cell,
    write_findings,
)
from harness.runs import (
    Subject,
    list_subjects,
    mapping_folder,
    name_of_subject,
    read_run_manifest,
    step_0_folders,
)
from harness.storage import write_atomically

# of tables, in pixels, as in templates/report.html; letters of a wide font
PAGE_WIDTH = 1072
LETTER_WIDTH = 8.2
CELL_PADDING, GROUP_PADDING = 18, 17


@dataclass(frozen=True)
class Fits:
    """The mappings of a subject that are drawn: all fits of step 0 and that of the last snapshot."""

    step_0: tuple[Mapping, ...]
    end: Mapping
    shift: DepthShift


def write_report(study: Path) -> Path:
    """Write ``report.html`` into a study's folder, from its finished runs, and return its path.

    Raises
    ------
    InputError
        If the study does not exist or has no finished run, or a run's file is missing or broken.
    """
    study = Path(study)
    runs = read_runs(study)
    page = render(runs, study.resolve().name, unfinished_runs(study), *answer_questions(study, runs))
    path = study / "report.html"
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def render(
    runs: Sequence[RunResult],
    study: str,
    unfinished: Sequence[str],
    contrasts: Sequence[Contrast] = (),
    unanswered: Sequence[str] = (),
) -> str:
    """Render the page as HTML.

    Parameters
    ----------
    runs : sequence of RunResult
        At least one.
    study : str
        Its name.
    unfinished : sequence of str
        Names of the study's runs that have not finished.
    contrasts : sequence of Contrast
        A against B, as the study or a user asked.
    unanswered : sequence of str
        Questions that the runs cannot answer, with the reason.
    """
    brains = _load_brains(runs)
    lines, loaded = choose_lines(runs), list(brains.values())
    frame, places = compare_runs(runs), order_places(loaded)
    score_columns = choose_score_columns(runs)
    scores = compare_runs(runs, score_columns) if score_columns else None
    shift_columns = choose_shift_columns(runs)
    shifted = compare_runs(runs, shift_columns) if shift_columns else None
    names = list(dict.fromkeys(run.config.task.name for run in runs))
    grafted = read_grafted([(_name_run(line, run), line.colour, run) for line in lines for run in line.runs])
    manifests = [read_run_manifest(run.folder) for run in runs]
    return load_template("report.html").render(
        study=study,
        runs=runs,
        tasks=names,
        sequences=any(len(run.tasks) > 1 for run in runs),
        trained={task for run in runs for task in run.tasks},
        brains=loaded,
        ceilings=[brain.noise_ceiling for brain in brains.values() if brain.noise_ceiling is not None],
        several_seeds=any(len(line.runs) > 1 for line in lines),
        several_subjects=any(line.subjects for line in lines),
        moved=any(len(run.steps) > 1 for run in runs),
        aligned=bool(find_alignment(lines)),
        zero_shot=any("/delta_zs" in metric for metric, _, _ in frame.columns),
        tables=list(build_tables(frame, lines)),
        scores=None if scores is None else build_score_table(scores, lines),
        shifted=None if shifted is None else build_score_table(shifted, lines, "Under distribution shift"),
        robustness=[write_robustness(one) for one in judge_robustness(lines)],
        anchorings=[write_anchoring(one) for one in find_anchorings(runs)],
        pictures=list(draw_pictures(lines, probe_tasks(runs), places, name_areas(loaded))),
        grafts=_show_grafts(grafted),
        sections=list(draw_runs(lines, brains)),
        missing=list_missing(lines, probe_tasks(runs), places),
        code_versions=sorted({manifest["code_version"] for manifest in manifests}),
        packages=manifests[-1].get("packages", {}) | {"python": manifests[-1].get("python", "unknown")},
        findings=write_findings(
            {line.label: list_verdicts(line) for line in lines},
            name_units(lines),
            _mean_forgetting(frame, lines),
            _count_probed(runs),
        ),
        simulated=any(run.config.brain.name == "simulated" for run in runs),
        unfinished=unfinished,
        contrasts=[_describe_contrast(one) for one in contrasts],
        unanswered=unanswered,
    )


def list_verdicts(line: Line) -> list[Verdict]:
    """Verdicts of a line's last snapshots: every seed and subject."""
    return [verdict for run in line.runs for verdict in run.verdicts.values()]


def _mean_forgetting(frame: pd.DataFrame, lines: Sequence[Line]) -> dict[str, float]:
    """Δ_LP of the last snapshot by line, mean over probes."""
    chosen = [column for column in frame.columns if re.fullmatch("forgetting/.+/delta_lp", column[0])]
    means = frame[[column for column in chosen if column[2] == "value"]].mean(axis=1)
    return {line.label: mean for line, mean in zip(lines, means, strict=True) if not math.isnan(mean)}


def _count_probed(runs: Sequence[RunResult]) -> str:
    """What Δ_LP is measured on, in words: how many probes, and how many test images each has."""
    probes = probe_tasks(runs)
    counts = [count_images([run], f"forgetting/{probe}/delta_lp", "end") for probe in probes for run in runs]
    known = [count for count in counts if not math.isnan(count)]
    images = f"{write_range(known)} test images" + (" each" if len(probes) > 1 else "")
    mean = f"mean of {len(probes)}" if len(probes) > 1 else ""
    return ", ".join(part for part in (mean, images if known else "") if part)


def name_units(lines: Sequence[Line]) -> str:
    """What the verdicts of one line differ in."""
    seeds, subjects = any(len(line.runs) > 1 for line in lines), any(line.subjects for line in lines)
    return "subjects and seeds" if seeds and subjects else "subjects" if subjects else "seeds"


def _describe_contrast(contrast: Contrast) -> dict[str, Any]:
    headings, sections = write_sections(contrast)
    return {
        "title": contrast.title,
        "summary": summarise(contrast),
        "explained": explain(contrast),
        "headings": headings,
        "sections": sections,
    }


def _name_run(line: Line, run: RunResult) -> str:
    return line.title if len(line.runs) == 1 else f"{line.title}, seed {run.config.seed}"


def _show_grafts(grafted: Sequence[Grafted]) -> dict[str, Any] | None:
    """The section of grafts: a figure of all runs, and tables of each; None without any."""
    if not grafted:
        return None
    return {
        "address": embed_svg(draw_grafts(grafted)),
        "runs": [
            {"title": one.title, "verdict": write_verdict(one.summary), "tables": write_tables(one.summary)}
            for one in grafted
        ],
    }


def _load_brains(runs: Sequence[RunResult]) -> dict[BrainConfig, Brain]:
    """Load the brain of every subject, without responses, which may not fit into memory together."""
    subjects = [subject for run in runs for subject in list_subjects(run.config.brain, run.folder)]
    return {
        config: leave_rows_out(load_brain(config)) for config in dict.fromkeys(one.brain for one in subjects)
    }


def choose_lines(runs: Sequence[RunResult]) -> list[Line]:
    """Make one line per group of runs: colour by backbone, dash and marker by what else differs."""
    groups = group_runs(runs)
    colours = choose_colours({run.config.backbone.name: not run.config.backbone.untrained for run in runs})
    # the palette has nine colours: backbones that share one differ in dash and marker too
    turns = {
        name: list(colours.values())[:place].count(colour)
        for place, (name, colour) in enumerate(colours.items())
    }
    styles = list(dict.fromkeys((turns[group.backbone], *group[1:]) for group in groups))
    return [
        Line(
            group.label(list(groups)),
            colours[group.backbone],
            DASHES[style % len(DASHES)],
            tuple(alike),
            MARKERS[style % len(MARKERS)],
            group.backbone,
            _name_variant(group, list(groups)),
        )
        for group, alike in groups.items()
        for style in [styles.index((turns[group.backbone], *group[1:]))]
    ]


def _name_variant(group: Group, groups: Sequence[Group]) -> str:
    """What distinguishes a group from others of its backbone, in words."""
    parts = [
        f"{what} {getattr(group, what)}"
        for what in ("task", "method")
        if len({getattr(one, what) for one in groups}) > 1
    ]
    return ", ".join([*parts, *([group.variant] if group.variant else [])])


def build_tables(frame: pd.DataFrame, lines: Sequence[Line]) -> Iterator[dict[str, Any]]:
    """Build the comparison: what was learned and forgotten; what was rewired, overall and per subject."""
    columns = columns_of(frame)
    parts: dict[str, list[Column]] = {
        "Learned and forgotten": [],
        "One task after another": [],
        "Rewired": [],
    }
    for column in columns:
        stage = describe_metric(column.metric).stage
        if stage in ("sequence", "stability"):
            title = "One task after another"
        else:
            title = "Rewired" if STAGES[stage].of_brain else "Learned and forgotten"
        parts[title].append(column)
    for title, chosen in parts.items():
        if not chosen:
            continue
        rows: list[dict[str, Any]] = [
            {"line": line, "label": None, "cells": [_build_cell(column, values, line) for column in chosen]}
            for line, (_, values) in zip(lines, frame.iterrows(), strict=True)
        ]
        yield _build_table(title, chosen, rows)
    chosen = choose_subject_columns([run for line in lines for run in line.runs])
    rows = [
        {"line": line, "label": label, "cells": [_build_own_cell(column, line, label) for column in chosen]}
        for line in lines
        for label in line.subjects
    ]
    if rows and chosen:
        yield _build_table("Rewired, every subject", chosen, rows)


def build_score_table(
    frame: pd.DataFrame, lines: Sequence[Line], title: str = "Scores of probes, before and after"
) -> dict[str, Any]:
    """Build a table beside the comparison, of probes' scores or shifts, from the frame of its columns."""
    columns = columns_of(frame)
    rows: list[dict[str, Any]] = [
        {"line": line, "label": None, "cells": [_build_cell(column, values, line) for column in columns]}
        for line, (_, values) in zip(lines, frame.iterrows(), strict=True)
    ]
    return _build_table(title, columns, rows)


def _build_table(title: str, columns: Sequence[Column], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Build a table, in stacked parts no wider than the page."""
    groups, widths = group_by_heading(columns), []
    for above, places in groups.items():
        letters = [
            max(len(columns[place].heading), *(_count_letters(row["cells"][place]) for row in rows))
            for place in places
        ]
        padding = CELL_PADDING * len(places) + GROUP_PADDING
        widths.append(math.ceil(max(sum(letters), len(above)) * LETTER_WIDTH + padding))
    # the number of seeds is the longest addition to a name
    names = [f"{row['line'].label}, {row['label'] or ''} (10 seeds)" for row in rows]
    room = PAGE_WIDTH - math.ceil(LETTER_WIDTH * max(map(len, names)))
    items = list(groups.items())
    parts = [dict(items[one] for one in ones) for ones in stack(widths, room)]
    return {"title": title, "columns": columns, "rows": rows, "parts": parts}


def _count_letters(cell: dict[str, str]) -> int:
    """Width of a cell; its spread is below the number, in small letters."""
    return max(len(cell["text"]), math.ceil(0.8 * max(len(cell["sd"]), len(cell["interval"]))))


def _build_cell(column: Column, values: pd.Series, line: Line) -> dict[str, str]:
    """Build a cell: number, sd over seeds, interval over subjects, and where to find it."""
    key = (column.metric, column.at)
    text, sd = _split_spread(column.write(values[*key, "value"], values[*key, "sd"]))
    interval = column.write_interval(values[*key, "low"], values[*key, "high"])
    return {"text": text, "sd": sd, "interval": interval, "where": _say_where(column, column.metric, line)}


def _split_spread(text: str) -> tuple[str, str]:
    """Split a written number from its standard deviation; a text in words has none."""
    number, mark, sd = text.partition(" ±")
    return number, mark.strip() + sd


def _build_own_cell(column: Column, line: Line, label: str) -> dict[str, str]:
    """Build a cell of one subject."""
    metric = name_of_subject(column.metric, label)
    value: float | str
    value, sd = column.summarise(find_all(line.runs, metric, column.at))
    if column.form == "verdict":
        value = write_cell([run.verdicts[label] for run in line.runs if label in run.verdicts])
    text, spread = _split_spread(column.write(value, sd))
    interval = column.write_interval(*find_interval(line.runs, metric, column.at))
    return {"text": text, "sd": spread, "interval": interval, "where": _say_where(column, metric, line)}


def _say_where(column: Column, metric: str, line: Line) -> str:
    """Write a number's name in the results, its step and every seed's value."""
    found = [(run, *run.find(metric, column.at)) for run in line.runs]
    return "\n".join(
        f"{name}, step {step}, seed {run.config.seed}: {'not measured' if value is None else f'{value:.6g}'}"
        for run, name, step, value in found
    )


def draw_runs(lines: Sequence[Line], brains: dict[BrainConfig, Brain]) -> Iterator[dict[str, Any]]:
    """Draw a section per run: maps of its brain; unfolded for the first seed of a line.

    The first seed shows all subjects, and clusters of the first subject's voxels; other seeds show the first
    subject.
    """
    drawn = [
        (line, run, subject, run is line.runs[0] and first)
        for line in lines
        for run in line.runs
        for first, subject in _choose_drawn(run, run is line.runs[0])
    ]
    fits = {subject: _load_fits(subject, run.steps[-1]) for _, run, subject, _ in drawn}
    limit = choose_limit([fit.shift for fit in fits.values()])
    for line, run, subject, shown in drawn:
        brain, fit = brains[subject.brain], fits[subject]
        image = embed_png(draw_layer_maps(brain, fit.step_0[0], fit.end, fit.shift, limit))
        # only for the first seed: drawing maps takes most of a report's time
        clusters = _draw_clusters(brain, fit, run.config.seed) if shown else None
        yield {
            "line": line,
            "run": run,
            "label": subject.label,
            "image": image,
            "clusters": clusters,
            "shown": shown,
        }


def _choose_drawn(run: RunResult, all_subjects: bool) -> list[tuple[bool, Subject]]:
    """Subjects of a run to draw, each with whether it is the first."""
    first, *others = list_subjects(run.config.brain, run.folder)
    return [(True, first), *((False, subject) for subject in others if all_subjects)]


def _draw_clusters(brain: Brain, fit: Fits, seed: int) -> str | None:
    """Draw clusters of voxels at step 0, in a refit and at the last snapshot; None without channels."""
    if fit.end.weights is None:
        return None
    fits = {"Step 0": fit.step_0[0], "Floor: a refit of step 0": fit.step_0[-1], "Last snapshot": fit.end}
    labels = label_voxels(list(fits.values()), N_CLUSTERS, seed)
    return embed_png(draw_cluster_maps(brain, dict(zip(fits, labels, strict=True))), 120)


def _load_fits(subject: Subject, last: int) -> Fits:
    step_0 = tuple(load_mapping(path) for path in step_0_folders(subject.folder))
    end = load_mapping(mapping_folder(subject.folder, last))
    return Fits(step_0, end, measure_shift(step_0, end))
