"""Rows of several subjects: the mean of every measure over subjects, its interval, and each subject's own.

Two kinds of chance are kept apart by name. What a subject's excess is held against, refits of an unchanged
backbone in that subject, is in the subject's own rows: ``rewiring/V1/subj01/wasserstein_p``. What another
draw of subjects would change is in the rows of the mean: ``rewiring/V1/wasserstein_excess_subjects_p``.
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
    """Values of all metrics of one snapshot, by name, from those of its subjects.

    For ``stage/place/measure``, over the subjects that have it: the mean, under the plain name;
    ``…_subjects``, how many they are; and of two or more ``…_subjects_low`` and ``…_subjects_high``, the
    95 % interval of the mean (`mean_over_subjects`), but of floors. For an excess also
    ``…_subjects_p``, of the test that its mean over subjects is 0, one-sided as the floor's is
    (`harness.measures.rewiring.tail`), and, of ROIs, ``…_subjects_p_fdr``. Then every subject's own rows, as
    ``stage/place/subject/measure``.

    Parameters
    ----------
    rows : dict of label to dict of name to float
        Of each subject; not all need have the same ROIs and measures.
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
