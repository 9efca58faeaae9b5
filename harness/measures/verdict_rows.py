"""Verdicts as rows, read back: what a snapshot's rows say about every region, in words.

A verdict is logged as a code, ``verdict/<place>/kind``. Tables, figures, queries and MLflow's tags read it
here. Nothing is imported but the names of metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from harness.measures.catalogue import split_name


class VerdictKind(IntEnum):
    """What happened to a region, by severity; the numbers stand in results."""

    UNCHANGED = 0
    LOSS_OF_SIGNAL = 1
    REWEIGHTED = 2
    REWIRED = 3


VERDICTS = tuple(kind.name.lower().replace("_", " ") for kind in VerdictKind)
"""What ``verdict/<place>/kind`` means, by code: "unchanged", "loss of signal", "reweighted", "rewired"."""

REASONS = {
    "probe_fell": "a fresh linear probe has lost what it knew of the task",
    "degenerate": "its features no longer tell images apart",
    "not_finite": "its weights are not finite",
}
"""Why a backbone is called collapsed, by the row ``collapse/all/<reason>``."""


def name_verdict(code: float) -> str:
    """Name the verdict of a code, 0 to 3."""
    return VERDICTS[round(code)]


@dataclass(frozen=True)
class Verdict:
    """What one snapshot's rows say.

    Attributes
    ----------
    kinds : dict of place to str
        Verdict of every region, and of ``all``, the whole brain; empty without verdicts.
    p, r2_before, r2_after : dicts of place to float
        As far as there are such rows.
    reasons : tuple of str
        Why the backbone is called collapsed; empty if it is not, or if it is not known.
    """

    kinds: dict[str, str] = field(default_factory=dict)
    p: dict[str, float] = field(default_factory=dict)
    r2_before: dict[str, float] = field(default_factory=dict)
    r2_after: dict[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    @property
    def collapsed(self) -> bool:
        """Whether the backbone is collapsed; then there is no verdict."""
        return bool(self.reasons)

    def regions(self, kind: str) -> list[str]:
        """Regions with this verdict, in the order of the rows."""
        return [place for place, found in self.kinds.items() if place != "all" and found == kind]

    def summarise(self) -> str:
        """The verdict in one line.

        ``rewired: V4, LO2``; the strongest verdict that any region has, with its regions; for a brain without
        regions, the verdict of the whole.
        """
        if self.collapsed:
            return "collapsed, no verdict"
        for kind in reversed(VERDICTS[1:]):
            places = self.regions(kind)
            if places:
                return f"{kind}: {', '.join(places)}"
        return self.kinds.get("all", VERDICTS[0])


def read_verdict(rows: Mapping[str, float], subject: str | None = None) -> Verdict | None:
    """Read the verdict out of the rows of one snapshot.

    Parameters
    ----------
    rows : dict of name to float
        Rows of ``results.jsonl`` at one step; others than verdicts and collapse are ignored.
    subject : str, optional
        Label of the subject, where there are several.

    Returns
    -------
    Verdict or None
        None if the rows hold neither a verdict nor a collapse.
    """
    found: dict[str, dict[str, float]] = {}
    reasons = tuple(text for reason, text in REASONS.items() if rows.get(f"collapse/all/{reason}"))
    for name, value in rows.items():
        if name.startswith("verdict/"):
            parts = split_name(name)
            if parts.subject == subject:
                found.setdefault(parts.measure, {})[parts.place] = value
    if "kind" not in found and not reasons:
        return None
    kinds = {} if reasons else {place: name_verdict(code) for place, code in found.get("kind", {}).items()}
    measures = {name: found.get(name, {}) for name in ("p", "r2_before", "r2_after")}
    return Verdict(kinds, **measures, reasons=reasons)


def tag_verdicts(verdicts: Mapping[str | None, Verdict]) -> dict[str, str]:
    """Tags of a run in MLflow: ``verdict`` in words, and ``rewired_regions`` with commas between.

    Parameters
    ----------
    verdicts : dict of subject to Verdict
        Of the run's last snapshot, by label; the only subject is None.

    Returns
    -------
    dict
        Empty without verdicts. With several subjects, each verdict follows its label, and a region is
        rewired if it is in any subject.
    """
    if not verdicts:
        return {}
    lines = {
        label: f"{label}: {found.summarise()}" if label is not None else found.summarise()
        for label, found in verdicts.items()
    }
    collapsed = all(found.collapsed for found in verdicts.values())
    rewired = dict.fromkeys(place for found in verdicts.values() for place in found.regions("rewired"))
    verdict = next(iter(verdicts.values())).summarise() if collapsed else "; ".join(lines.values())
    return {"verdict": verdict, "rewired_regions": ",".join(rewired)}
