"""Accuracy under distribution shifts: relative drops, corruption errors, and their rows.

A snapshot's probes file holds, per task and family of shifts (``corruptions``, ``textures``, ``imagenet_r``),
what every way to score got right on the clean counterpart and on every part: a corruption at a severity, or
the whole family.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from harness.config import (
    ALL_CORRUPTIONS,
    CORRUPTION_GROUPS,
    CORRUPTIONS,
)
from harness.measures.label_scores import (
    LabelScores,
    score_labels,
)
from harness.measures.per_image import Hits, decode_images
from harness.measures.shift_entries import SHIFT_SCORINGS
from harness.storage import InputError

LEVEL = 0.05
"""A clean accuracy above chance at this level has a relative drop."""


def relative_drop(clean: float, shifted: float, chance: float) -> float:
    """Share of the lead over chance that a shift takes: (clean − shifted) / (clean − chance).

    0: nothing is lost; 1: chance is left; negative: better than clean.

    Parameters
    ----------
    clean, shifted, chance : float
        Accuracies, 0 to 1.

    Raises
    ------
    InputError
        If the clean accuracy is not above chance.
    """
    if not 0 <= chance < clean <= 1 or not 0 <= shifted <= 1:
        raise InputError(
            f"relative drop: found accuracies {clean} clean, {shifted} shifted and {chance} by chance, "
            "expected fractions, and a clean one above chance"
        )
    return (clean - shifted) / (clean - chance)


def corruption_error(
    errors: Float[np.ndarray, " n_severities"], reference: Float[np.ndarray, " n_severities"]
) -> float | None:
    """CE = Σ_s E_s / Σ_s E_s of a reference, over severities (Hendrycks & Dietterich 2019, section 4.2).

    The paper's reference is AlexNet; ours is step 0 of the same run. None if the reference makes no error.
    """
    total = float(np.sum(reference))
    return float(np.sum(errors)) / total if total > 0 else None


def mean_corruption_error(
    errors: Mapping[str, Float[np.ndarray, " n_severities"]],
    reference: Mapping[str, Float[np.ndarray, " n_severities"]],
) -> float | None:
    """MCE: the mean of `corruption_error` over corruptions; None if it is undefined for one of them."""
    found = [corruption_error(errors[name], reference[name]) for name in errors]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known and len(known) == len(found) else None


def chance_accuracy(labels: Int[np.ndarray, " n_images"]) -> float:
    """Accuracy of always answering the most frequent class."""
    return float(np.bincount(labels).max() / len(labels))


def encode_scores(scores: LabelScores) -> dict[str, Any]:
    """Content of a probes file: accuracy, calibration error, and which images are right."""
    assert isinstance(scores.images, Hits)
    return {"accuracy": scores.accuracy, "ece": scores.ece, "right": scores.images.encode()}


def score_shift(
    probabilities: Float[np.ndarray, "n_images n_classes"], labels: Int[np.ndarray, " n_images"]
) -> dict[str, Any]:
    """Score probabilities of the classes of a shift, as `encode_scores` writes them."""
    return encode_scores(score_labels(probabilities, labels))


def name_part(corruption: str, severity: int) -> str:
    """Name of a corruption at a severity: ``fog-3``."""
    return f"{corruption}-{severity}"


def name_shifts(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, float]:
    """Name all measures under shifts, from the probes files of a snapshot and of step 0; often empty."""
    values: dict[str, float] = {}
    for task, families in now.get("shifts", {}).items():
        for family, record in families.items():
            start = before.get("shifts", {}).get(task, {}).get(family)
            for shift, parts in _group(family, record["parts"]).items():
                prefix = f"shift/{task}/{shift}/"
                values[f"{prefix}n_test"] = float(record["n"])
                for scoring, (name, _) in SHIFT_SCORINGS.items():
                    if scoring not in record["clean"]:
                        continue
                    found = _name_scores(record, parts, scoring)
                    if family == ALL_CORRUPTIONS:
                        found |= _name_errors(record, start, parts, scoring)
                    if shift in CORRUPTIONS and scoring == "linear":
                        found |= _name_severities(record, parts, scoring)
                    values |= {f"{prefix}{name}{measure}": value for measure, value in found.items()}
    return values


def _group(family: str, parts: Iterable[str]) -> dict[str, list[str]]:
    """Parts of every shift that has rows: the family, its groups, and every corruption."""
    names = list(parts)
    if family != ALL_CORRUPTIONS:
        return {family: names}
    of = {name: [part for part in names if part.rpartition("-")[0] == name] for name in CORRUPTIONS}
    groups = {
        group: [part for name in members for part in of[name]] for group, members in CORRUPTION_GROUPS.items()
    }
    # a mean over some of the corruptions must not look like one over all
    whole = {ALL_CORRUPTIONS: names} if all(of.values()) else {}
    complete = {
        group: own for group, own in groups.items() if all(of[name] for name in CORRUPTION_GROUPS[group])
    }
    return whole | complete | {name: own for name, own in of.items() if own}


def _name_scores(record: Mapping[str, Any], parts: Sequence[str], scoring: str) -> dict[str, float]:
    clean, chance = record["clean"][scoring]["accuracy"], record["chance"]
    scored = [record["parts"][part][scoring] for part in parts]
    accuracy = float(np.mean([one["accuracy"] for one in scored]))
    values = {
        "accuracy": accuracy,
        "ece": float(np.mean([one["ece"] for one in scored])),
        "clean_accuracy": float(clean),
    }
    n_clean = record["n_clean"]
    test = stats.binomtest(round(clean * n_clean), n_clean, chance, alternative="greater")
    if clean > chance and test.pvalue < LEVEL:
        values["relative_drop"] = relative_drop(clean, accuracy, chance)
    return values


def _name_severities(record: Mapping[str, Any], parts: Sequence[str], scoring: str) -> dict[str, float]:
    """Name the accuracy at every severity of one corruption."""
    return {
        f"accuracy_{part.rpartition('-')[2]}": record["parts"][part][scoring]["accuracy"] for part in parts
    }


def _name_errors(
    record: Mapping[str, Any], start: Mapping[str, Any] | None, parts: Sequence[str], scoring: str
) -> dict[str, float]:
    """Name the corruption error, against step 0 of the same run."""
    if start is None:
        return {}

    def collect(of: Mapping[str, Any]) -> dict[str, np.ndarray]:
        found: dict[str, list[float]] = {}
        for part in parts:
            found.setdefault(part.rpartition("-")[0], []).append(1 - of["parts"][part][scoring]["accuracy"])
        return {name: np.array(errors) for name, errors in found.items()}

    value = mean_corruption_error(collect(record), collect(start))
    return {} if value is None else {"corruption_error": value}


def read_shift_hits(
    probes: Mapping[str, Any], task: str, shift: str, scoring: str
) -> tuple[dict[str, Any], list[Hits], Hits] | None:
    """Read what was right under a shift, part by part, and on its clean counterpart, with the record.

    None where the probes file lacks the shift or the way to score.
    """
    for family, record in probes.get("shifts", {}).get(task, {}).items():
        parts = _group(family, record["parts"]).get(shift)
        if parts is not None and scoring in record["clean"]:
            hits = [decode_images(record["parts"][part][scoring]["right"]) for part in parts]
            clean = decode_images(record["clean"][scoring]["right"])
            assert isinstance(clean, Hits)
            return dict(record), [one for one in hits if isinstance(one, Hits)], clean
    return None
