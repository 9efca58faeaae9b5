"""Rows of several subjects: the mean of every measure over subjects, its interval, and each subject's own.

Names keep two kinds of chance apart. A subject's own rows compare it with refits of an unchanged backbone in
that subject: ``rewiring/V1/subj01/wasserstein_p``. Rows of the mean say what another sample of subjects would
change: ``rewiring/V1/wasserstein_excess_subjects_p``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.measures import (
    correct_over_rois,
    describe,
    mean_over_subjects,
    split_name,
)
from harness.runs import name_of_subject


def combine_subjects(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Combine the metrics of one snapshot over subjects, by name.

    For ``stage/place/measure``, over the subjects that have it: the mean, under the plain name, and their
    number, ``…_subjects``. With two or more also the 95 % interval of the mean, ``…_subjects_low`` and
    ``…_subjects_high`` (`mean_over_subjects`), except for floors. An excess also gets ``…_subjects_p``, a
    test of its mean against 0 on the same side as the floor's, and in ROIs ``…_subjects_p_fdr``.
    `Metric.over_subjects` says which. Every subject's own rows follow as ``stage/place/subject/measure``.

    Parameters
    ----------
    rows : dict of label to dict of name to float
        Rows of each subject; ROIs and measures may differ between subjects.
    """
    values: dict[str, float] = {}
    tested: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for own in rows.values() for name in own):
        metric = describe(name)
        if metric.over_subjects == "nothing":
            continue
        found = np.array([own[name] for own in rows.values() if name in own])
        values |= {name: float(found.mean()), f"{name}_subjects": len(found)}
        if len(found) < 2 or metric.over_subjects == "mean":
            continue
        over = mean_over_subjects(found, metric.tail or "two-sided")
        values |= {name: over.mean, f"{name}_subjects_low": over.low, f"{name}_subjects_high": over.high}
        if metric.over_subjects == "test":
            values[f"{name}_subjects_p"] = over.p
            if split_name(name).place != "all":
                tested.setdefault(metric.measure, []).append(f"{name}_subjects_p")
    for names in tested.values():
        corrected = correct_over_rois(np.array([values[name] for name in names]))
        values |= {f"{name}_fdr": float(p) for name, p in zip(names, corrected, strict=True)}
    for label, own in rows.items():
        values |= {name_of_subject(name, label): value for name, value in own.items()}
    return values
