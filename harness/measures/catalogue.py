"""The catalogue of metrics: name, unit, range, direction, definition and headings of all numbers of a run.

Names are ``stage/place/measure``; with several subjects also ``stage/place/subject/measure``. Whatever needs
to know a metric looks it up here: rows, tables, figures, queries, and the page that

    python -m harness.measures.catalogue > docs/metrics.md

writes. This module imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import (
    Iterable,
    Iterator,
    Sequence,
)
from functools import cache
from typing import NamedTuple

from harness.config import CORRUPTIONS
from harness.measures.endings import (
    FLOOR,
    IMAGES,
    SPREAD,
    SUBJECTS,
    WEIGHTED,
    Ending,
)
from harness.measures.entries import (
    STAGES,
    list_metrics,
)
from harness.measures.metric import (
    Metric,
)
from harness.measures.network_entries import SCORINGS
from harness.storage import unknown_name

INTERPOLATED = "wise_ft."
"""Prefix of the metrics of weights between a run's first and last snapshot (WiSE-FT)."""

LAYER = "layer"
"""First part of the measures of single layers, ``layer/<layer>``."""

CATALOGUE: tuple[Metric, ...] = tuple(list_metrics())
"""All metrics, by stage; rows derived from a measure follow it."""

_BY_KEY: dict[tuple[str, str], Metric] = {(metric.stage, metric.measure): metric for metric in CATALOGUE}
_TERM = _BY_KEY["train", "<term>"]
# the longest ending first: a layer's share has that of every ending it ends in
_OF_LAYERS = sorted(
    (metric for metric in CATALOGUE if metric.measure.startswith(f"{LAYER}/")),
    key=lambda metric: -len(metric.ending),
)


class MetricName(NamedTuple):
    """The parts of a metric's name.

    Attributes
    ----------
    stage, place, measure : str
        The place of a name without one, such as ``train/loss``, is ``all``.
    subject : str or None
        None: the mean over subjects, or the only subject.
    interpolated : bool
        Whether it has the prefix of WiSE-FT's curves.
    shift : str or None
        The distribution shift, of metrics under one.
    """

    stage: str
    place: str
    measure: str
    subject: str | None = None
    interpolated: bool = False
    shift: str | None = None


def split_name(name: str) -> MetricName:
    """Split the name of a metric, known or not, into its parts."""
    stage, *rest = name.removeprefix(INTERPOLATED).split("/")
    if stage in ("selectors", "rsa", "evidence") and len(rest) > 2 and rest[-2] == LAYER:
        rest[-2:] = [f"{LAYER}/{rest[-1]}"]
    if stage == "shift" and len(rest) == 3:
        return MetricName(stage, rest[0], rest[2], None, name.startswith(INTERPOLATED), rest[1])
    *where, measure = rest or [""]
    place, subject, *_ = (*where, None, None)
    return MetricName(stage, place or "all", measure, subject, name.startswith(INTERPOLATED))


@cache
def describe(name: str) -> Metric:
    """Look up the metric of a row.

    Parameters
    ----------
    name : str
        As in ``results.jsonl``: ``rewiring/V4/wasserstein_excess``.

    Raises
    ------
    InputError
        If no metric has this name; the message suggests the nearest.
    """
    parts = split_name(name)
    found = _BY_KEY.get((parts.stage, parts.measure))
    if parts.measure.startswith(f"{LAYER}/"):
        of_stage = (metric for metric in _OF_LAYERS if metric.stage == parts.stage)
        found = next((metric for metric in of_stage if parts.measure.endswith(metric.ending)), None)
    if found is None and parts.stage == "train" and name.count("/") == 1:
        found = _TERM
    if found is None or not _fits(found, name, parts):
        raise unknown_name("metric", name, set(_list_names(parts)))
    return found


def _fits(metric: Metric, name: str, parts: MetricName) -> bool:
    """Whether a metric exists for the place, subject and prefix of a name."""
    place = metric.pattern.split("/")[1]
    n_parts = metric.pattern.count("/") + (parts.subject is not None)
    whole = {
        "all": parts.place == "all",
        "<roi>": parts.place != "all",
        "<scoring>": parts.place in SCORINGS,
    }
    return (
        name.count("/") == n_parts
        and whole.get(place, True)
        and (parts.subject is None or (STAGES[metric.stage].of_brain and "_subjects" not in metric.ending))
        and (STAGES[metric.stage].interpolated or not parts.interpolated)
    )


def _list_names(parts: MetricName) -> Iterator[str]:
    """All names for the place of an unknown name, to suggest the nearest."""
    for metric in CATALOGUE:
        stage, *where = metric.pattern.removesuffix(f"/{metric.measure}").split("/")
        measure = metric.measure
        if where == ["<task>", "<shift>"]:
            where = [f"{parts.place}/{parts.shift or '<shift>'}"]
        prefix = INTERPOLATED if parts.interpolated and STAGES[metric.stage].interpolated else ""
        places = where
        if where == ["<scoring>"]:
            places = list(SCORINGS)
        elif where == ["<place>"] or (where and where[0].startswith("<") and parts.place != "all"):
            places = [parts.place]
        for place in places:
            yield f"{prefix}{stage}/{place}/{measure}"
        if not where:
            yield f"{prefix}{stage}/{measure}"


def is_headline(name: str) -> bool:
    """Whether a row is one of the few to look at first; rows of single subjects never are."""
    metric, parts = describe(name), split_name(name)
    # one of many corruptions says little alone
    if parts.shift in CORRUPTIONS:
        return False
    if metric.headline == "never" or parts.subject is not None:
        return False
    if parts.place == "all" or not STAGES[metric.stage].of_brain:
        return True
    return metric.headline == "every place" and not parts.interpolated


# --- the page


def to_markdown() -> str:
    """Write ``docs/metrics.md``."""
    parts = [_INTRODUCTION]
    for kind, stage in STAGES.items():
        rows = [_write_row(metric) for metric in CATALOGUE if metric.stage == kind and not metric.ending]
        parts.append(f"## {stage.title}\n\n{stage.text}\n\n" + "\n".join([*_HEAD, *rows]))
    parts.append(_write_endings())
    return "\n\n".join(parts) + "\n"


_INTRODUCTION = """# Metrics

<!-- written by `python -m harness.measures.catalogue`: do not edit -->

Every row of `results.jsonl` has one of these names, and `palimpsest query` goes by their parts. Headlines are
the few to look at first: MLflow's metrics, under [names of its own](mlflow.md#what-a-run-holds). A metric
without a unit is a fraction, a correlation or a pure number. Formulas and reasons:
[definitions.md](definitions.md).

Placeholders: `<task>` a task or probe, `<shift>` a distribution shift, `<layer>` a layer, `<roi>` a region of
the brain, `<place>` a region or `all`, the whole brain; layers also have the places `early_areas`,
`middle_areas` and `high_areas`. With several subjects, `brain/V1/r2` is the mean over subjects and
`brain/V1/subj01/r2` is one subject's. The prefix `wise_ft.` marks weights between a run's first and last
snapshot (`palimpsest wise-ft`); their step is α in percent."""

_HEAD = (
    "| metric | range | better | headline | definition |",
    "| --- | --- | --- | --- | --- |",
)


def _write_row(metric: Metric) -> str:
    source = f" ({metric.source})" if metric.source else ""
    text = f"{metric.definition.removesuffix('.')}{source}. `{metric.code}`"
    cells = (f"`{metric.pattern}`", _write_range(metric), metric.better, _write_headline(metric), text)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _write_range(metric: Metric) -> str:
    low, high = (f"{end:.4g}".replace("-", "−").replace("inf", "∞") for end in (metric.low, metric.high))
    opening, closing = "(" if low == "−∞" else "[", ")" if high == "∞" else "]"
    return f"{opening}{low}, {high}{closing} {metric.unit}".rstrip()


def _write_headline(metric: Metric) -> str:
    """Write where a measure is a headline, and with which endings."""
    places: dict[str, list[str]] = {"every place": [], "whole brain": []}
    for one in CATALOGUE:
        if one.stage == metric.stage and metric.measure in (one.measure, one.base) and one.headline in places:
            places[one.headline].append(f"`{one.ending}`" if one.ending else "")
    texts = []
    for place, endings in places.items():
        if endings:
            where = place if STAGES[metric.stage].of_brain else "yes"
            texts.append(f"{where}: {', '.join(endings)}" if all(endings) else where)
    return "; ".join(texts)


def _write_endings() -> str:
    def write(title: str, text: str, endings: Iterable[Ending]) -> str:
        rows = [f"| `{one.ending}` | {one.definition.format('measure')} `{one.code}` |" for one in endings]
        return "\n".join([f"### {title}", "", text, "", "| ending | definition |", "| --- | --- |", *rows])

    floors = [metric.measure for metric in CATALOGUE if metric.tail == "two-sided" and not metric.ending]
    falls = [metric.measure for metric in CATALOGUE if metric.tail == "less" and not metric.ending]
    sides = (
        "A distance is tested for more than the floor; "
        f"{_enumerate(falls)} for less; {_enumerate(floors)} for either, as they have a sign."
    )
    over = [ending for endings in SUBJECTS.values() for ending in endings]
    return "\n\n".join(
        [
            "## Endings",
            write(
                "Noise floor", f"Of every measure of rewiring, from snapshots after step 0. {sides}", FLOOR
            ),
            write("Test images", "Of every measure of forgetting.", IMAGES),
            write("Noise ceiling", "Of voxel measures of rewiring.", WEIGHTED),
            write(
                "Spread of refits",
                "Of `hierarchy`, `hierarchy_rois` and `slope`.",
                SPREAD,
            ),
            write(
                "Several subjects",
                "Of means over subjects. What describes a floor has a number of subjects only; tests and "
                "intervals against a floor exist for single subjects only. `_subjects_p` tests an `_excess`.",
                over,
            ),
        ]
    )


def _enumerate(measures: Sequence[str]) -> str:
    *first, last = (f"`{measure}`" for measure in measures)
    return f"{', '.join(first)} and {last}" if first else last


if __name__ == "__main__":
    print(to_markdown(), end="")
