"""Entries of metrics under distribution shifts. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.config import SEVERITIES
from harness.measures.metric import Metric
from harness.measures.probes.kinds import PROBE_KINDS

_ROWS = "harness.measures.shift_rows"

SHIFT_SCORINGS = {"linear": ("", "linear probe"), "head": ("head_", "fine-tuned head")} | {
    kind.name: (kind.prefix, kind.title) for kind in PROBE_KINDS if kind.classifies and kind.name != "linear"
}
"""Ways to score under a shift: prefix of their measures (the linear probe has none), and title."""


def list_shifts() -> Iterator[Metric]:
    """List measures of accuracy under distribution shifts, per way to score."""
    yield Metric(
        "shift/<task>/<shift>/n_test",
        "number of shifted images",
        "Number of images under the shift; of corruptions, that of images which are corrupted.",
        f"{_ROWS}.name_shifts",
        unit="images",
        low=1.0,
    )
    for prefix, title in SHIFT_SCORINGS.values():
        main = prefix == ""
        above = "{place}" if main else f"{{place}}: {title}"
        yield Metric(
            f"shift/<task>/<shift>/{prefix}accuracy",
            f"accuracy under shift, {title}",
            f"Accuracy of the {title} on shifted test images; mean over corruptions and severities. Probes "
            "are fitted on clean training images.",
            f"{_ROWS}.score_shift",
            "Hendrycks & Dietterich 2019",
            low=0.0,
            high=1.0,
            better="higher",
            headline="every place" if main else "never",
            above=above,
        )
        yield Metric(
            f"shift/<task>/<shift>/{prefix}clean_accuracy",
            f"clean accuracy, {title}",
            f"Accuracy of the {title} on the shift's clean counterpart: the same images before corruption, "
            "or the test images of the shift's classes, among these classes.",
            f"{_ROWS}.name_shifts",
            low=0.0,
            high=1.0,
            better="higher",
            above=above,
            heading="clean, after",
        )
        yield Metric(
            f"shift/<task>/<shift>/{prefix}ece",
            f"calibration error under shift, {title}",
            "Expected calibration error on shifted test images, 15 bins of equal width; mean over "
            "corruptions and severities.",
            "harness.measures.label_scores.calibration_error",
            "Guo et al. 2017",
            low=0.0,
            high=1.0,
            better="lower",
        )
        yield Metric(
            f"shift/<task>/<shift>/{prefix}relative_drop",
            f"relative drop, {title}",
            "(clean − shifted) / (clean − chance): the share of the lead over chance that the shift takes. "
            "Absent unless clean accuracy is above chance (binomial test at .05).",
            f"{_ROWS}.relative_drop",
            high=math.inf,
            better="lower",
            above=above,
            heading="drop",
            form="signed",
        )
        yield Metric(
            f"shift/<task>/<shift>/{prefix}corruption_error",
            f"corruption error, {title}",
            "Σ_s E / Σ_s E at step 0 of the same run, over severities; of `corruptions` and groups, its mean "
            "over corruptions (mCE).",
            f"{_ROWS}.mean_corruption_error",
            "Hendrycks & Dietterich 2019, section 4.2",
            low=0.0,
            better="lower",
            above=above,
            heading="mCE",
        )
        for severity in SEVERITIES if main else ():
            yield Metric(
                f"shift/<task>/<shift>/{prefix}accuracy_{severity}",
                f"accuracy at severity {severity}, {title}",
                f"Accuracy of the {title} on images under one corruption at severity {severity}.",
                f"{_ROWS}.score_shift",
                "Hendrycks & Dietterich 2019",
                low=0.0,
                high=1.0,
                better="higher",
            )
