"""Rows derived from a measure, recognised by their ending: floors, means over subjects and their tests."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness.measures.metric import (
    At,
    Form,
    Headline,
    Metric,
    OverSubjects,
)


@dataclass(frozen=True)
class Ending:
    """A kind of row derived from a measure, recognised by the end of its name.

    Attributes
    ----------
    ending : str
        ``_null``, ``_excess_low`` and so on.
    title, definition : str
        ``{}`` stands for the measure's title.
    range : str
        "same" as the measure's, "spread" (0 to the width of that range), "difference" of two values, "share"
        (0 to 1), "count" (from 1), or "any".
    heading, form :
        As for `Metric`; form None: the measure's.
    directed : bool
        Whether it is better in the same direction as the measure.
    over_subjects : str
        As for `Metric`.
    rois_only : bool
        Whether the whole brain lacks such a row.
    code : str
        As for `Metric`.
    """

    ending: str
    title: str
    definition: str
    range: Literal["same", "spread", "difference", "any", "share", "count"]
    code: str
    heading: str = ""
    form: Form | None = None
    directed: bool = False
    over_subjects: OverSubjects = "nothing"
    rois_only: bool = False

    def apply(self, metric: Metric, headline: Headline, compared: tuple[At, ...]) -> Metric:
        """Derive the metric with this ending from `metric`."""
        width = metric.high - metric.low
        low, high = {
            "same": (metric.low, metric.high),
            "spread": (0.0, width),
            "difference": (-width, width),
            "any": (-math.inf, math.inf),
            "share": (0.0, 1.0),
            "count": (1.0, math.inf),
        }[self.range]
        unit = {"share": "", "count": "subjects"}.get(self.range, metric.unit)
        return replace(
            metric,
            pattern=(metric.pattern.replace("<place>", "<roi>") if self.rois_only else metric.pattern)
            + self.ending,
            title=self.title.format(metric.title),
            definition=self.definition.format(metric.title),
            source="",
            code=self.code,
            unit=unit,
            low=low,
            high=high,
            better=metric.better if self.directed else "neither",
            headline=headline,
            above=metric.above or metric.title,
            heading=self.heading,
            form=self.form or metric.form,
            compared=compared,
            # the mean of an excess over subjects is tested on the same side
            tail=metric.tail if self.over_subjects == "test" else None,
            over_subjects=self.over_subjects,
            base=metric.base or metric.measure,
            ending=metric.ending + self.ending,
        )


_FLOOR = "harness.measures.significance.noise_floor"
_SUBJECTS = "harness.measures.significance.mean_over_subjects"
_FDR = "harness.measures.significance.correct_over_rois"

FLOOR = (
    Ending(
        "_null",
        "{}, floor",
        "Noise floor: the mean {} between fits of step 0, each against the others.",
        "same",
        _FLOOR,
        heading="floor",
        over_subjects="mean",
    ),
    Ending(
        "_excess",
        "excess {}",
        "Raw minus floor: {} beyond the mean between refits of an unchanged backbone. It has no p.",
        "difference",
        _FLOOR,
        heading="excess",
        form="signed",
        directed=True,
        over_subjects="test",
    ),
    Ending(
        "_excess_low",
        "excess {}, lower end",
        "Lower end of the excess's interval: raw minus the upper end of the range of one more refit.",
        "any",
        _FLOOR,
        heading="excess, low",
        form="signed",
    ),
    Ending(
        "_excess_high",
        "excess {}, upper end",
        "Upper end of the excess's interval: raw minus the lower end of that range.",
        "any",
        _FLOOR,
        heading="excess, high",
        form="signed",
    ),
)
"""Rows of a measure that is held against refits of step 0."""

WEIGHTED = (
    Ending(
        "_weighted",
        "{}, weighted",
        "Mean over voxels weighted by noise ceiling; absent without a ceiling.",
        "same",
        "harness.measures.rewiring.summarise_rois",
        heading="weighted",
        directed=True,
        over_subjects="interval",
    ),
)

SPREAD = (
    Ending(
        "_null_mean",
        "{}, mean of the floor",
        "Mean over the fits of step 0; logged at step 0.",
        "same",
        "harness.measures.rows.measure_brain",
        heading="refit mean",
        over_subjects="mean",
    ),
    Ending(
        "_null_sd",
        "{}, sd of the floor",
        "Standard deviation over the fits of step 0; logged at step 0.",
        "spread",
        "harness.measures.rows.measure_brain",
        heading="refit sd",
        over_subjects="mean",
    ),
)

_IMAGES = "harness.measures.image_bootstrap.delta_interval"

IMAGES = (
    Ending(
        "_low",
        "{}, lower end over test images",
        "Lower end of its 95 % interval over test images: a paired bootstrap.",
        "same",
        _IMAGES,
        heading="low, images",
    ),
    Ending(
        "_high",
        "{}, upper end over test images",
        "Upper end of the same interval.",
        "same",
        _IMAGES,
        heading="high, images",
    ),
)
"""Rows of a change of a probe's score."""

# by what a row says of several subjects
SUBJECTS: dict[OverSubjects, tuple[Ending, ...]] = {
    "mean": (
        Ending(
            "_subjects",
            "{}, number of subjects",
            "Number of subjects that the mean is over.",
            "count",
            "harness.tracking.across_subjects.combine_subjects",
            heading="subjects",
            form="number",
        ),
    ),
    "interval": (
        Ending(
            "_subjects_low",
            "{}, lower end over subjects",
            "Lower end of the 95 % interval of the mean over subjects.",
            "any",
            _SUBJECTS,
            heading="low, subjects",
        ),
        Ending(
            "_subjects_high",
            "{}, upper end over subjects",
            "Upper end of the 95 % interval of the mean over subjects.",
            "any",
            _SUBJECTS,
            heading="high, subjects",
        ),
    ),
    "test": (
        Ending(
            "_subjects_p",
            "p of {} over subjects",
            "p value of a mean excess of 0 over subjects: t test, on the measure's side.",
            "share",
            _SUBJECTS,
            heading="p, subjects",
            form="p",
        ),
        Ending(
            "_subjects_p_fdr",
            "p of {} over subjects, corrected",
            "The same, corrected for the number of ROIs (Benjamini–Hochberg).",
            "share",
            _FDR,
            heading="p, subjects, FDR",
            form="p",
            rois_only=True,
        ),
    ),
}
"""Rows of a mean over subjects; "test" has those of "interval" too, and "interval" those of "mean"."""


def _over_subjects(metric: Metric) -> Iterator[Ending]:
    levels: tuple[OverSubjects, ...] = ("nothing", "mean", "interval", "test")
    for level in levels[1 : levels.index(metric.over_subjects) + 1]:
        yield from SUBJECTS[level]


def expand(
    metric: Metric,
    endings: Sequence[Ending] = (),
    headline: Mapping[str, Headline] | None = None,
    compared: Mapping[str, tuple[At, ...]] | None = None,
) -> Iterator[Metric]:
    """List a metric and everything derived from it.

    Parameters
    ----------
    metric : Metric
    endings : sequence of Ending
        In addition to those of means over subjects, which `Metric.over_subjects` implies.
    headline, compared : dicts of ending
        `Metric.headline` and `Metric.compared` of derived metrics.
    """

    def make(made_from: Metric, ending: Ending) -> Metric:
        whole = made_from.ending + ending.ending
        return ending.apply(made_from, (headline or {}).get(whole, "never"), (compared or {}).get(whole, ()))

    own = [metric, *(make(metric, ending) for ending in endings)]
    yield from own
    for one in own:
        yield from (make(one, ending) for ending in _over_subjects(one))
