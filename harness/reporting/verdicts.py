"""Verdicts in words: a cell of the comparison, and the two sentences that a report begins with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from harness.measures import (
    VERDICTS,
    Verdict,
)

SHOWN_NAMES = 4
"""Regions that a cell names before it counts the rest."""

PHRASES = {"rewired": ("is rewired", "are rewired"), "reweighted": ("is reweighted", "are reweighted")}
"""Of verdicts whose regions are named; the others are counted."""

CERTAINTY = (
    "Rewired means that another layer has overtaken the one a region read before (p ≤ 0.05 against controls "
    "that lose as much signal) or that the depth it reads has moved by half a layer (p ≤ 0.01); reweighted "
    "(p ≤ 0.01) means neither, as noise can reweight layers too, and unchanged means that nothing was found, "
    "not that nothing has changed."
)

NO_VERDICT = (
    "These runs have no verdict, so whether anything was rewired cannot be said.",
    "Distances between fits describe how far voxels have moved, but noise alone moves them too, and an "
    "excess over the floor is no evidence.",
)


def write_cell(verdicts: Sequence[Verdict]) -> str:
    """Write the verdict of runs that differ in seed or subject: ``rewired: V4 3/3, LO2 1/3``.

    The strongest verdict that any region has, with its regions. Without verdicts, an empty text.
    """
    if not verdicts:
        return ""
    n_collapsed = sum(one.collapsed for one in verdicts)
    if len(verdicts) == 1 or n_collapsed == len(verdicts):
        return _shorten(verdicts[0])
    parts = []
    for kind in reversed(VERDICTS[1:]):
        places = _count_regions(verdicts, kind)
        if places:
            names = [f"{place} {count}/{len(verdicts)}" for place, count in places.items()]
            parts.append(f"{kind}: {_cut(names)}")
            break
    else:
        parts.append(_shorten(next(one for one in verdicts if not one.collapsed)))
    if n_collapsed:
        parts.append(f"collapsed {n_collapsed}/{len(verdicts)}")
    return "; ".join(parts)


def _shorten(verdict: Verdict) -> str:
    """Write a verdict in one line, with no more than a few names."""
    kind, colon, names = verdict.summarise().partition(": ")
    return f"{kind}: {_cut(names.split(', '))}" if colon else kind


def _cut(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_NAMES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:SHOWN_NAMES])} +{more}"


def _count_regions(verdicts: Sequence[Verdict], kind: str) -> dict[str, int]:
    """How many verdicts call a region this, by region in order."""
    regions = (place for one in verdicts for place in one.kinds if place != "all")
    counts = Counter(place for one in verdicts for place in one.regions(kind))
    return {place: counts[place] for place in dict.fromkeys(regions) if counts[place]}


def write_findings(
    verdicts: Mapping[str, Sequence[Verdict]],
    units: str = "seeds",
    forgotten: Mapping[str, float] | None = None,
    probed: str = "",
) -> tuple[str, str]:
    """Write what a study found, and with what certainty: two sentences.

    Parameters
    ----------
    verdicts : dict of label to sequence of Verdict
        Of the last snapshot, by line of the report: a verdict for every seed and subject.
    units : str
        What the verdicts of one line differ in: "seeds", "subjects", "subjects and seeds".
    forgotten : dict of label to float, or None
        Δ_LP of the last snapshot, mean over probes and runs, where there is any.
    probed : str
        What it was measured on, such as "mean of 3, 200 test images each".

    Returns
    -------
    tuple of two str
        What was found; what that means, and what cannot be said.
    """
    clauses = {label: _write_clause(found, units) for label, found in verdicts.items() if found}
    if not clauses:
        return NO_VERDICT
    for label, change in (forgotten or {}).items():
        if label in clauses:
            told = f" ({probed})" if probed else ""
            clauses[label] += f", and linear probes of other tasks changed by {_signed(change)}{told}"
            probed = ""  # once is enough
    first = "; ".join(f"in {label}, {clause}" for label, clause in clauses.items()) + "."
    only_collapsed = all(one.collapsed for found in verdicts.values() for one in found)
    collapsed = "A collapsed backbone gets no verdict: what its voxels read says nothing about rewiring."
    return first[:1].upper() + first[1:], collapsed if only_collapsed else CERTAINTY


def _write_clause(verdicts: Sequence[Verdict], units: str) -> str:
    """Write what was found in the runs of one line, beginning in lower case."""
    n = len(verdicts)
    judged = [one for one in verdicts if not one.collapsed]
    if not judged:
        reasons = dict.fromkeys(reason for one in verdicts for reason in one.reasons)
        return f"the backbone collapsed ({'; '.join(reasons)}), so there is no verdict"
    parts = []
    named: set[str] = set()
    for kind in reversed(VERDICTS[1:]):
        places = _count_regions(judged, kind)
        named |= set(places)
        if kind not in PHRASES:
            if places:
                verb = "have" if len(places) > 1 else "has"
                once = f" in some {units}" if n > 1 else ""
                parts.append(f"{_count(len(places), bool(named - set(places)))} {verb} lost signal{once}")
        elif places:
            parts.append(_write_regions(places, PHRASES[kind], judged, n, units))
        elif kind == "rewired":
            parts.append("no region is rewired")
    every = {place for one in judged for place in one.kinds if place != "all"}
    n_left = len(every - named)
    if n_left:
        parts.append(f"{_count(n_left, bool(named))} {'are' if n_left > 1 else 'is'} unchanged")
    if not every:
        kinds = Counter(one.kinds["all"] for one in judged)
        parts = [f"the brain is judged {enumerate_names(list(kinds))}"]
    change = _mean_change(judged)
    text = enumerate_names(parts) + ("" if change is None else f" (ΔR² of the brain {_signed(change)})")
    collapsed = n - len(judged)
    return f"{text}, and the backbone collapsed in {collapsed} of {n} {units}" if collapsed else text


def _count(n_regions: int, others: bool) -> str:
    return f"{n_regions} {'other ' if others else ''}region{'s' if n_regions > 1 else ''}"


def _write_regions(
    places: Mapping[str, int], phrases: tuple[str, str], judged: Sequence[Verdict], n: int, units: str
) -> str:
    """Name regions of one verdict; how many runs have it once, if that is the same for all."""
    verb = phrases[len(places) > 1]
    counts = set(places.values())
    if n > 1 and len(places) > 1 and len(counts) == 1:
        return f"{enumerate_names(list(places))} {verb} (each in {counts.pop()} of {n} {units})"
    names = [_write_region(place, count, judged, n, units) for place, count in places.items()]
    return f"{enumerate_names(names)} {verb}"


def _write_region(place: str, count: int, judged: Sequence[Verdict], n: int, units: str) -> str:
    """Name a region, with its p for a single run or the number of runs."""
    if n > 1:
        return f"{place} (in {count} of {n} {units})"
    p = judged[0].p.get(place)
    if p is None:
        return place
    return f"{place} (p < .001)" if p < 0.001 else f"{place} (p = {p:.3f})"


def _mean_change(judged: Sequence[Verdict]) -> float | None:
    """Change of the brain's R², mean over runs."""
    changes = [
        one.r2_after["all"] - one.r2_before["all"]
        for one in judged
        if "all" in one.r2_after and "all" in one.r2_before
    ]
    return sum(changes) / len(changes) if changes else None


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def enumerate_names(names: Sequence[str]) -> str:
    """``a, b and c``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
