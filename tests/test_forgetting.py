import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.measures import drift
from harness.measures import forgetting as f
from harness.storage.errors import InputError

R = np.array([[80, 20, 30], [90, 85, 25], [70, 75, 95]]) / 100
B = np.array([10, 15, 12]) / 100
GAIN = np.array([[80, 20, 30], [90, 85, 25], [95, 75, 95]]) / 100


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (f.average_accuracy(R), 0.80),
        (f.backward_transfer(R), -0.10),
        (f.forward_transfer(R, B), 0.09),
        (f.forgetting_chaudhry(R), 0.15),
        (f.forgetting_max_all(R), 0.15),
        (f.relative_forgetting(R), (20 / 90 + 10 / 85) / 2),
        (f.transfer(R), 0.2375),
        (f.forgetting_chaudhry(GAIN), 0.025),
        (f.forgetting_max_all(GAIN), 0.05),
        (f.relative_forgetting(GAIN), 10 / 85 / 2),
    ],
)
def test_worked_example(found, expected):
    assert found == pytest.approx(expected)


def test_delta_is_negative_where_something_is_forgotten():
    assert f.delta(0.9, 0.75) == pytest.approx(-0.15)


matrices = arrays(np.float64, (4, 4), elements=st.floats(0, 1))


@given(matrices)
def test_variants_of_forgetting_keep_their_order(accuracy):
    assert f.forgetting_max_all(accuracy) >= f.forgetting_chaudhry(accuracy)
    assert f.forgetting_max_all(accuracy) >= 0
    assert f.forgetting_max_all(accuracy) >= -f.backward_transfer(accuracy) - 1e-12
    assert 0 <= f.relative_forgetting(accuracy) <= 1


def test_a_task_never_learned_has_nothing_to_forget():
    assert f.relative_forgetting(np.array([[0.0, 0.1], [0.0, 0.5]])) == 0


@pytest.mark.parametrize("wrong", [1.2, -0.1, np.nan, 80.0])
def test_accuracies_are_fractions(wrong):
    bad = R.copy()
    bad[1, 1] = wrong
    measures = (
        f.average_accuracy,
        f.backward_transfer,
        f.forgetting_chaudhry,
        f.forgetting_max_all,
        f.relative_forgetting,
        f.transfer,
        f.min_accuracy,
        lambda accuracy: f.forward_transfer(accuracy, B),
        lambda accuracy: f.windowed_forgetting(accuracy[1], 2),
        lambda accuracy: f.delta(0.5, float(accuracy[1, 1])),
    )
    for measure in measures:
        with pytest.raises(InputError, match=r"found an accuracy of .*fractions, 0 to 1"):
            measure(bad)
    with pytest.raises(InputError, match="forward transfer"):
        f.forward_transfer(R, B * 100)


def test_one_task_forgets_nothing_but_itself():
    one = np.array([[0.5]])
    assert f.average_accuracy(one) == 0.5
    for measure in (f.backward_transfer, f.forgetting_chaudhry, f.forgetting_max_all, f.transfer):
        with pytest.raises(InputError, match="found 1 task, expected at least 2"):
            measure(one)


def test_windowed_forgetting_by_hand():
    accuracy = np.array([0.9, 0.8, 0.85, 0.6])
    assert f.windowed_forgetting(accuracy, 2) == pytest.approx(0.25)
    assert f.windowed_forgetting(accuracy, 3) == pytest.approx(0.25)
    assert f.windowed_forgetting(accuracy, 4) == pytest.approx(0.3)
    assert f.windowed_forgetting(accuracy, 100) == pytest.approx(0.3)
    assert f.windowed_forgetting(np.array([0.1, 0.2, 0.5]), 3) == pytest.approx(-0.1)
    assert f.windowed_forgetting(np.array([0.4]), 2) == 0
    with pytest.raises(InputError, match="window of 1"):
        f.windowed_forgetting(accuracy, 1)


def test_min_accuracy_runs():
    accuracy = np.array([[0.9, 0.5], [0.7, 0.6], [0.8, 0.4]])
    np.testing.assert_array_equal(f.min_accuracy(accuracy), [[0.9, 0.5], [0.7, 0.5], [0.7, 0.4]])


def test_feature_drift_by_hand():
    before = np.array([[0, 0], [1, 1]], np.float32)
    after = np.array([[3, 4], [1, 0]], np.float32)
    assert drift.feature_drift(before, after) == 13


X = np.array([[1.0, 0], [0, 1], [1, 1], [0, 0]])
Y = np.array([[2.0], [0], [2], [0]])


def test_cka_worked_example():
    assert drift.linear_cka(X, Y) == pytest.approx(0.70711, abs=1e-5)


def test_cka_is_the_formula_of_kornblith():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 5)) + 3, rng.normal(size=(20, 7)) - 2
    xc, yc = x - x.mean(0), y - y.mean(0)
    norm = np.linalg.norm
    assert drift.linear_cka(x, y) == pytest.approx(norm(yc.T @ xc) ** 2 / (norm(xc.T @ xc) * norm(yc.T @ yc)))


def hsic_by_definition(k, m):
    """Average K_ij (M_ij + M_qr - 2 M_iq) over ordered quadruples of distinct images."""
    quadruples = itertools.permutations(range(len(k)), 4)
    return np.mean([k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in quadruples])


def test_unbiased_cka_is_the_u_statistic():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    y[:, 0] += x[:, 0]
    k, m = x @ x.T, y @ y.T
    expected = hsic_by_definition(k, m) / np.sqrt(hsic_by_definition(k, k) * hsic_by_definition(m, m))
    assert drift.linear_cka(x, y, unbiased=True) == pytest.approx(expected)


def test_unbiased_cka_is_low_where_the_biased_is_fooled():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(50, 500)), rng.normal(size=(50, 500))
    assert drift.linear_cka(x, y) > 0.85
    assert abs(drift.linear_cka(x, y, unbiased=True)) < 0.1


@pytest.mark.parametrize("unbiased", [False, True])
def test_cka_does_not_see_rotation_shift_and_scale(unbiased):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(30, 6))
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert drift.linear_cka(x, 4 * x @ rotation + 7, unbiased) == pytest.approx(1)


@pytest.mark.parametrize("unbiased", [False, True])
def test_cka_of_collapsed_features_is_zero(unbiased):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(9, 3))
    assert drift.linear_cka(x, np.full((9, 2), 0.1), unbiased) == 0


def test_unbiased_cka_needs_four_images():
    with pytest.raises(InputError, match="found 3 images"):
        drift.linear_cka(X[:3], Y[:3], unbiased=True)


def test_delta_names_either_accuracy():
    for before, after in ((1.2, 0.5), (0.5, 1.2)):
        with pytest.raises(InputError, match=r"delta: found an accuracy of 1\.2"):
            f.delta(before, after)


def test_measures_between_tasks_need_two():
    one = np.array([[0.5]])
    with pytest.raises(InputError, match="found 1 task"):
        f.forward_transfer(one, np.array([0.1]))
    with pytest.raises(InputError, match="found 1 task"):
        f.relative_forgetting(one)


def test_the_best_accuracy_may_be_any_before_the_last():
    accuracy = np.array([[90, 20, 30], [60, 85, 25], [70, 75, 95]]) / 100
    # first task: .9 - .7, from its best after itself; second: .85 - .75
    assert f.forgetting_chaudhry(accuracy) == pytest.approx((0.2 + 0.1) / 2)
    assert f.forgetting_max_all(accuracy) == pytest.approx((0.2 + 0.1) / 2)


def test_relative_forgetting_of_a_task_that_was_never_good():
    # half of the little that was learned is lost
    assert f.relative_forgetting(np.array([[0.4, 0.1], [0.2, 0.9]])) == pytest.approx(0.5)


def test_drift_is_measured_in_double_precision():
    before, after = np.array([[-1]], np.float32), np.array([[2**25]], np.float32)
    assert drift.feature_drift(before, after) == (2**25 + 1) ** 2  # single precision cannot represent 2²⁵ + 1


def test_biased_cka_of_three_images_by_hand():
    # centred: ‖YᵀX‖² = 20/9, ‖XᵀX‖ = √90/9, YᵀY = 24/9
    assert drift.linear_cka(X[:3], Y[:3]) == pytest.approx(np.sqrt(0.625))


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("scale", [1e-45, 1e45])
def test_cka_neither_overflows_nor_underflows(unbiased, scale):
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 12, 3))
    assert drift.linear_cka(scale * x, scale * y, unbiased) == pytest.approx(drift.linear_cka(x, y, unbiased))


@pytest.mark.parametrize("unbiased", [False, True])
def test_cka_sees_features_that_vary_little_around_a_large_mean(unbiased):
    rng = np.random.default_rng(6)
    x = rng.normal(size=(12, 3))
    assert drift.linear_cka(x, x + 1e6, unbiased) == pytest.approx(1, abs=1e-6)
    x, y = (1000 + rng.normal(size=(12, 3)).astype(np.float32) for _ in range(2))
    wide = drift.linear_cka(x.astype(np.float64), y.astype(np.float64), unbiased)
    assert drift.linear_cka(x, y, unbiased) == pytest.approx(wide, rel=1e-12)


@pytest.mark.parametrize("value", [-0.1, 1e6 + 0.1, 1e-20 / 3])
def test_cka_of_collapsed_features_is_zero_whatever_their_value(value):
    rng = np.random.default_rng(7)
    x = rng.normal(size=(9, 3))
    for unbiased in (False, True):
        assert drift.linear_cka(x, np.full((9, 2), value), unbiased) == 0
        assert drift.linear_cka(np.full((9, 2), value), x, unbiased) == 0
