"""Rows of several subjects, against hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest

from harness.measures.significance import correct_over_rois
from harness.tracking.across_subjects import combine_subjects

ONE_SIDED = (1 - np.sqrt(6 / 7)) / 2  # p of t = 2√3 with 2 degrees of freedom


def test_plain_names_are_means_and_the_others_say_of_whom() -> None:
    rows = {f"subj0{n}": {"brain/V1/r2": 0.1 * n} for n in (1, 2, 3)}
    assert combine_subjects(rows) == pytest.approx(
        {
            "brain/V1/r2": 0.2,
            "brain/V1/r2_subjects": 3,
            "brain/V1/r2_subjects_low": 0.2 - 0.2484138,
            "brain/V1/r2_subjects_high": 0.2 + 0.2484138,
            "brain/V1/subj01/r2": 0.1,
            "brain/V1/subj02/r2": 0.2,
            "brain/V1/subj03/r2": 0.3,
        },
        abs=1e-6,
    )


def test_a_region_that_not_all_have_is_a_mean_over_those_that_do() -> None:
    rows = {
        "a": {"brain/V1/r2": 0.1, "brain/FFC/r2": 0.5, "brain/PHA/r2": 0.7},
        "b": {"brain/V1/r2": 0.3},
        "c": {"brain/V1/r2": 0.2, "brain/FFC/r2": 0.3},
    }
    found = combine_subjects(rows)
    assert found["brain/FFC/r2"] == pytest.approx(0.4)
    counts = {place: found[f"brain/{place}/r2_subjects"] for place in ("V1", "FFC", "PHA")}
    assert counts == {"V1": 3, "FFC": 2, "PHA": 1}
    # one subject gives a value but no interval
    assert found["brain/PHA/r2"] == 0.7 and "brain/PHA/r2_subjects_low" not in found
    assert "brain/FFC/b/r2" not in found and found["brain/FFC/c/r2"] == 0.3


def test_the_floor_is_of_one_subject_and_the_test_of_the_mean_is_another() -> None:
    def rewired(excess: float) -> dict[str, float]:
        values = {}
        for place, share in (("all", 1.0), ("V1", 1.0), ("V2", -1.0)):
            for measure in ("wasserstein", "cluster_agreement")[: 1 if place == "all" else 2]:
                name = f"rewiring/{place}/{measure}"
                values |= {f"{name}_excess": share * excess, f"{name}_null": 0.1}
                values |= {f"{name}_excess_low": 0.0, f"{name}_excess_high": 1.0}
        return values

    found = combine_subjects({label: rewired(excess) for label, excess in zip("abc", (1, 2, 3), strict=True)})
    own = ("_excess_low", "_excess_high")
    plain = {name for name in found if name.count("/") == 2 and "_subjects" not in name}
    assert plain == {
        f"rewiring/{place}/{measure}_{end}"
        for place in ("all", "V1", "V2")
        for measure in ("wasserstein", "cluster_agreement")
        for end in ("excess", "null")
        if (place, measure) != ("all", "cluster_agreement")
    }
    assert all(f"rewiring/V1/b/wasserstein{end}" in found for end in own)
    # the test is one-sided: distances above the floor, agreement below it
    p = {place: found[f"rewiring/{place}/wasserstein_excess_subjects_p"] for place in ("all", "V1", "V2")}
    assert p == pytest.approx({"all": ONE_SIDED, "V1": ONE_SIDED, "V2": 1 - ONE_SIDED})
    assert found["rewiring/V2/cluster_agreement_excess_subjects_p"] == pytest.approx(ONE_SIDED)
    corrected = correct_over_rois(np.array([ONE_SIDED, 1 - ONE_SIDED]))
    assert found["rewiring/V1/wasserstein_excess_subjects_p_fdr"] == pytest.approx(corrected[0])
    assert found["rewiring/V2/wasserstein_excess_subjects_p_fdr"] == pytest.approx(corrected[1])
    assert "rewiring/all/wasserstein_excess_subjects_p_fdr" not in found
    # floors are averaged for plotting and never tested
    assert found["rewiring/V1/wasserstein_null"] == pytest.approx(0.1)
    assert not any("_null_subjects_" in name for name in found)
