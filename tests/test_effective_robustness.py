"""Effective robustness: lines with known answers, and networks that are invariant or unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from harness.measures import robustness as er
from harness.storage.errors import InputError


def hits(share: float, n: int, seed: int) -> np.ndarray:
    """Make exactly a share of images right, in a random order."""
    return np.random.default_rng(seed).permutation(n) < round(share * n)


def model(
    name: str, clean: list[float], shifted: float, seed: int, n: int = 400, **more: bool
) -> er.ModelHits:
    keys = tuple(f"set {place}" for place in range(len(clean)))
    right = tuple(hits(share, n, seed + place) for place, share in enumerate(clean))
    return er.ModelHits(name, right, (hits(shifted, n, seed + 9),), (*keys, "shifted"), **more)


def on_line(clean: float) -> float:
    return float(expit(-0.8 + 0.9 * logit(clean)))


BASELINE = [
    model(f"network {place}", [clean], on_line(clean), 100 * place)
    for place, clean in enumerate((0.5, 0.6, 0.7, 0.8, 0.9))
]


def test_line_and_plane_by_hand():
    clean = np.array([[0.0], [1.0], [2.0]])
    np.testing.assert_allclose(er.fit_line(clean, np.array([-1.0, 1.0, 3.0])), [-1, 2])
    found = [er.apply_line(np.array([-1.0, 2.0]), one) for one in clean]
    np.testing.assert_allclose(found, expit([-1, 1, 3]))
    plane = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    np.testing.assert_allclose(er.fit_line(plane, np.array([0.5, 1.5, 2.5, 3.5])), [0.5, 1, 2])


def test_logits_of_0_and_1_are_finite():
    np.testing.assert_allclose(er.to_logit(np.array([0.0, 0.5, 1.0]), 9), [-np.log(19), 0, np.log(19)])


def test_an_invariant_network_is_robust_and_an_unchanged_one_is_not():
    """What is right under the shift is what is right without it, by construction."""
    right = hits(0.75, 400, 7)
    invariant = er.ModelHits("invariant", (right,), (right,), ("set 0", "shifted"))
    unchanged = model("unchanged", [0.75], on_line(0.75), 8)
    found = {
        one.name: one for one in er.effective_robustness([*BASELINE, invariant, unchanged], n_resamples=300)
    }
    # the invariant one is also in the others' baseline, as in a study
    found |= {one.name: one for one in er.effective_robustness([*BASELINE, unchanged], n_resamples=300)}
    assert found["invariant"].value == pytest.approx(0.75 - on_line(0.75), abs=0.03)
    assert found["invariant"].low > 0.05
    assert found["unchanged"].value == pytest.approx(0, abs=0.02)
    assert found["unchanged"].low < 0 < found["unchanged"].high
    assert all(found[one.name].low < 0 < found[one.name].high for one in BASELINE)


def test_a_judged_network_does_not_bend_its_own_line():
    robust = model("robust", [0.9], 0.9, 3)
    (found,) = er.effective_robustness([*BASELINE[:4], robust], n_resamples=20)[-1:]
    alone = er.fit_line(
        er.to_logit(np.array([[0.5], [0.6], [0.7], [0.8]]), 400),
        er.to_logit(np.array([hit.shifted[0].mean() for hit in BASELINE[:4]]), 400),
    )
    assert found.expected == pytest.approx(er.apply_line(alone, er.to_logit(np.array([0.9]), 400)), abs=1e-6)


def test_controls_outside_the_baseline_are_judged_but_shape_no_line():
    odd = model("untrained", [0.52], 0.9, 5, baseline=False)
    with_odd = er.effective_robustness([*BASELINE, odd], n_resamples=20)
    without = er.effective_robustness(BASELINE, n_resamples=20)
    assert [one.expected for one in with_odd[:5]] == [one.expected for one in without]
    assert with_odd[5].value > 0.3


def test_a_second_set_explains_what_one_set_calls_robustness():
    """Models trained on other data lie off the line of one set, and on the plane of two (Shi et al. 2023)."""
    rng = np.random.default_rng(0)
    models = []
    for place in range(9):
        one, other = rng.uniform(0.3, 0.9, 2)
        shifted = float(expit(-0.3 + 0.5 * logit(one) + 0.5 * logit(other)))
        models.append(model(f"{place}", [one, other], shifted, 50 * place, 2000))
    first = [er.ModelHits(m.name, m.clean[:1], m.shifted, (m.images[0], m.images[2])) for m in models]
    alone, both = (er.effective_robustness(some, n_resamples=50) for some in (first, models))
    spread = [np.std([one.value for one in found]) for found in (alone, both)]
    assert spread[1] < 0.2 * spread[0]


def test_a_change_of_the_same_images_is_paired_with_them():
    """Of corruptions, chance in the draw of images moves both accuracies, so the interval is narrower."""
    kept = hits(0.8, 400, 1)
    base = [
        er.ModelHits(str(i), (r := hits(c, 400, i),), (r & hits(0.8, 400, 50 + i),), ("a", "a shifted"))
        for i, c in enumerate((0.5, 0.7, 0.85))
    ]
    widths = []
    for paired in (False, True):
        judged = er.ModelHits("judged", (kept,), (kept,), ("a", "a shifted"), paired)
        both = [er.ModelHits(m.name, m.clean, m.shifted, m.images, paired) for m in base]
        found = er.effective_robustness([*both, judged], n_resamples=300)[-1]
        widths.append(found.high - found.low)
    assert widths[1] < 0.9 * widths[0]


def test_too_few_models_and_different_sets():
    # all equally good on clean images: no line
    alike = [model(str(place), [1.0], 0.5 + place / 10, place) for place in range(5)]
    assert er.effective_robustness(alike) == []
    assert er.effective_robustness([]) == [] == er.effective_robustness(BASELINE[:2])
    assert len(er.effective_robustness(BASELINE[:3], n_resamples=5)) == 3
    with pytest.raises(InputError, match="different in-distribution sets"):
        er.effective_robustness([*BASELINE, model("odd", [0.5, 0.5], 0.4, 1)])
