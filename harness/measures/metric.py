"""The record of a metric, and the stages that metrics belong to. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

Kind = Literal[
    "train",
    "task",
    "probe",
    "forgetting",
    "shift",
    "sequence",
    "stability",
    "drift",
    "collapse",
    "graft",
    "selectors",
    "rsa",
    "evidence",
    "verdict",
    "rewiring",
    "alignment",
    "brain",
]
Better = Literal["higher", "lower", "neither"]
Headline = Literal["every place", "areas", "whole brain", "never"]
Form = Literal["number", "signed", "p", "verdict"]
At = Literal["start", "end"]
Tail = Literal["greater", "less", "two-sided"]
OverSubjects = Literal["nothing", "mean", "interval", "test"]

ROUNDING = 1e-6
"""How far outside its range a value may be: selectors are float32."""


@dataclass(frozen=True)
class Stage:
    """A kind of metric: the first part of its name.

    Attributes
    ----------
    title, text : str
        Heading and introduction in the documentation.
    of_brain : bool
        Whether the place is an ROI or ``all``, and a subject may follow it.
    shown : str or None
        Default measure of a query; None: all measures.
    interpolated : bool
        Whether it is also measured between a run's first and last weights (WiSE-FT).
    """

    title: str
    text: str
    of_brain: bool = False
    shown: str | None = None
    interpolated: bool = True


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes
    ----------
    pattern : str
        Its name with placeholders: ``<task>``, ``<shift>``, ``<layer>``, ``<scoring>``, ``<roi>``,
        ``<place>`` (an ROI or ``all``).
    title : str
        Its name in headings and titles, in lower case.
    definition : str
        One sentence.
    source : str
        Paper or equation; empty if the definition is ours or elementary.
    code : str
        Function or class that computes it.
    unit : str
    low, high : float
        Range.
    better : "higher", "lower" or "neither"
    headline : "every place", "whole brain" or "never"
        Where it is one of the few metrics to look at first, which MLflow's charts show.
    above, heading : str
        Headings in tables, of its group of columns and of its own column; ``{place}`` stands for the place.
        An empty `above` means the title, an empty `heading` "before" or "after".
    form : "number", "signed" (+ or −), "p" or "verdict" (in words)
    compared : tuple of "start" and "end"
        Snapshots at which the comparison of runs shows it.
    tail : "greater", "less" or "two-sided", or None
        Side of the noise floor on which a change shows; None: it has no floor, or describes one.
    over_subjects : str
        Rows with several subjects: "nothing" (single subjects only), the "mean", also its "interval", or also
        the "test" of the mean against 0.
    base, ending : str
        The measure it is derived from, and what its name adds to it; empty for a measure itself.
    """

    pattern: str
    title: str
    definition: str
    code: str
    source: str = ""
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    better: Better = "neither"
    headline: Headline = "never"
    above: str = ""
    heading: str = ""
    form: Form = "number"
    compared: tuple[At, ...] = ()
    tail: Tail | None = None
    over_subjects: OverSubjects = "nothing"
    base: str = ""
    ending: str = ""

    @property
    def stage(self) -> Kind:
        """First part of its name."""
        return cast(Kind, self.pattern.partition("/")[0])

    @property
    def measure(self) -> str:
        """Last part of its name; the last two for a layer's share, ``layer/<layer>``."""
        return self.pattern.split("/", 2)[-1].removeprefix("<shift>/")

    def contains(self, value: float) -> bool:
        """Whether a value is in range."""
        return self.low - ROUNDING <= value <= self.high + ROUNDING
