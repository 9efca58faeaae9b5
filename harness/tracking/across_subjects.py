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
    mean_over_subjects,
    tail,
)
from harness.runs import name_of_subject

# tests and intervals against a subject's floor: their mean over subjects is neither
OF_ONE_SUBJECT = ("_excess_low", "_excess_high", "_p", "_p_fdr")
# what describes a floor: its mean is of use to draw it, an interval is not
OF_A_FLOOR = ("_null", "_null_mean", "_null_sd")


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
        if name.endswith(OF_ONE_SUBJECT):
            continue
        found = np.array([own[name] for own in rows.values() if name in own])
        values |= {name: float(found.mean()), f"{name}_subjects": len(found)}
        if len(found) < 2 or name.endswith(OF_A_FLOOR):
            continue
        _, place, measure = name.split("/")
        what = measure.removesuffix("_excess")
        over = mean_over_subjects(found, tail(what))
        values |= {name: over.mean, f"{name}_subjects_low": over.low, f"{name}_subjects_high": over.high}
        if what != measure:
            values[f"{name}_subjects_p"] = over.p
            if place != "all":
                tested.setdefault(what, []).append(f"{name}_subjects_p")
    for names in tested.values():
        corrected = correct_over_rois(np.array([values[name] for name in names]))
        values |= {f"{name}_fdr": float(p) for name, p in zip(names, corrected, strict=True)}
    for label, own in rows.items():
        values |= {name_of_subject(name, label): value for name, value in own.items()}
    return values
