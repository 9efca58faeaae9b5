from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, ortho_group, wasserstein_distance

from harness.brains.brain import Roi
from harness.measures.catalogue import (
    CATALOGUE,
    describe,
)
from harness.measures.rewiring import (
    compare_channels,
    confidence,
    describe_channels,
    expected_depth,
    jensen_shannon,
    rewiring_measures,
    summarise_rois,
    wasserstein,
)
from harness.storage.errors import InputError

WITH_FLOOR = [
    metric for metric in CATALOGUE if metric.stage == "rewiring" and metric.tail and not metric.ending
]
MEASURES = tuple(metric.measure for metric in WITH_FLOOR if "<place>" in metric.pattern)
CHANNEL_MEASURES = tuple(metric.measure for metric in WITH_FLOOR if "<roi>" in metric.pattern)


def tail(measure: str) -> str | None:
    return describe(f"rewiring/V1/{measure}").tail


@dataclass(frozen=True)
class Selected:
    layers: tuple[str, ...]
    layer: np.ndarray
    space: np.ndarray | None
    scale: np.ndarray | None
    r2: np.ndarray


BEFORE = Selected(
    layers=("a", "b", "c"),
    layer=np.array([[1, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]], np.float32),
    space=np.array([[0, 0], [-1, -1], [0.5, 0]], np.float32),
    scale=np.array([0.25, 0, 1], np.float32),
    r2=np.array([0.5, 0.25, -0.5], np.float32),
)
AFTER = Selected(
    layers=("a", "b", "c"),
    layer=np.array([[0, 0, 1], [0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]], np.float32),
    space=np.array([[0.6, 0.8], [1, 1], [0.5, 0]], np.float32),
    scale=np.array([0.5, 1, 1], np.float32),
    r2=np.array([0.25, 0.5, -0.5], np.float32),
)


def test_measures_by_hand():
    found = rewiring_measures(BEFORE, AFTER)
    expected = {
        "wasserstein": [1, 0.5, 0],
        "depth_shift": [1, 0.5, 0],
        # second voxel: 1/2 (KL of (.5,.5,0) from (.25,.5,.25), twice the same) = .5 bit
        "jensen_shannon": [1, 0.5, 0],
        "top_layer_changed": [1, 1, 0],
        "confidence_change": [0, 0, 0],
        "space_displacement": [1, 2 * np.sqrt(2), 0],
        "scale_change": [0.25, 1, 0],
        "r2_change": [-0.25, 0.25, 0],
    }
    assert tuple(found) == MEASURES == tuple(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6, err_msg=name)
        assert found[name].dtype == np.float64


def test_sign_is_after_minus_before():
    there, back = rewiring_measures(BEFORE, AFTER), rewiring_measures(AFTER, BEFORE)
    for name in MEASURES:
        sign = -1 if tail(name) == "two-sided" else 1
        np.testing.assert_allclose(there[name], sign * back[name], atol=1e-7, err_msg=name)


def test_selectors_that_neither_has_are_left_out():
    absent = {"space": None, "scale": None}
    before, after = replace(BEFORE, **absent), replace(AFTER, **absent)
    found, whole = rewiring_measures(before, after), rewiring_measures(BEFORE, AFTER)
    assert tuple(found) == tuple(n for n in MEASURES if n not in ("space_displacement", "scale_change"))
    for name in found:
        np.testing.assert_array_equal(found[name], whole[name])
    assert "space_displacement" in rewiring_measures(replace(BEFORE, scale=None), replace(AFTER, scale=None))
    with pytest.raises(InputError, match="must share selectors: the second has space, the first not"):
        rewiring_measures(before, AFTER)
    with pytest.raises(InputError, match="the first has scale, the second not"):
        rewiring_measures(BEFORE, replace(AFTER, scale=None))


def test_confidence_by_hand():
    layer = np.array([[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]])
    np.testing.assert_allclose(confidence(layer), [1, 0, 0.5], atol=1e-12)


def test_confidence_is_that_of_scipys_entropy():
    rng = np.random.default_rng(0)
    layer = rng.dirichlet(np.full(8, 0.3), 50).astype(np.float32)
    expected = 1 - entropy(layer.astype(np.float64), axis=1) / np.log(8)
    np.testing.assert_array_equal(confidence(layer), expected.clip(0, 1))


def test_one_layer_has_no_depth_to_move_in():
    one = np.ones((2, 1), np.float32)
    np.testing.assert_array_equal(expected_depth(one), [0, 0])
    np.testing.assert_array_equal(wasserstein(one, one), [0, 0])
    np.testing.assert_array_equal(confidence(one), [1, 1])


def test_jensen_shannon_cannot_see_distance_but_wasserstein_can():
    first, second, last = np.eye(3)[:1], np.eye(3)[1:2], np.eye(3)[2:]
    assert jensen_shannon(first, second) == jensen_shannon(first, last) == 1
    assert wasserstein(first, second) == 0.5
    assert wasserstein(first, last) == 1


distributions = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).dirichlet(np.full(5, 0.5), size=2)
)


@settings(deadline=None, max_examples=50)
@given(distributions)
def test_agrees_with_scipy(pair):
    p, q = pair[:1], pair[1:]
    depth = np.linspace(0, 1, 5)
    assert wasserstein(p, q)[0] == pytest.approx(wasserstein_distance(depth, depth, p[0], q[0]), abs=1e-12)
    assert jensen_shannon(p, q)[0] == pytest.approx(jensenshannon(p[0], q[0], base=2) ** 2, abs=1e-12)
    shift = expected_depth(q) - expected_depth(p)
    assert wasserstein(p, q)[0] >= abs(shift[0]) - 1e-12


def test_rounding_is_not_a_divergence():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(6), 2000).astype(np.float32)
    q = np.nextafter(p, np.float32(1))
    divergence = jensen_shannon(p, q)
    assert np.isfinite(divergence).all()
    assert (divergence >= 0).all()
    assert divergence.max() < 1e-6


def test_mappings_that_cannot_be_compared():
    with pytest.raises(InputError, match=r"share layers.*'c'.*'d'"):
        rewiring_measures(BEFORE, replace(AFTER, layers=("a", "b", "d")))
    with pytest.raises(InputError, match="share voxels: found 3 and 2"):
        rewiring_measures(BEFORE, replace(AFTER, layer=AFTER.layer[:2]))


def test_summary_plain_and_weighted():
    measures = {"wasserstein": np.array([1.0, 0.5, 0.0])}
    rois = [Roi("V1", np.array([0, 1]), 1.0), Roi("dark", np.array([2]), None)]
    found = summarise_rois(measures, rois, np.array([0.75, 0.25, 0.0], np.float32))
    assert found == {
        "all": {"wasserstein": 0.5, "wasserstein_weighted": 0.875},
        "V1": {"wasserstein": 0.75, "wasserstein_weighted": 0.875},
        "dark": {"wasserstein": 0.0},
    }
    assert summarise_rois(measures, rois, None)["all"] == {"wasserstein": 0.5}


def test_an_roi_without_voxels_is_named():
    with pytest.raises(InputError, match="'V9' has no voxels"):
        summarise_rois({"x": np.ones(3)}, [Roi("V9", np.array([], dtype=int), 1.0)], None)


def grouped_weights(labels, seed, n_channels=16):
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.normal(size=(n_channels, n_channels)))[0][: max(labels) + 1]
    length = rng.uniform(0.5, 2, size=(len(labels), 1))
    return length * (centres[labels] + 0.05 * rng.normal(size=(len(labels), n_channels)))


LABELS = np.repeat([0, 1, 2, 3], 15)


def test_channels_do_not_depend_on_the_basis_of_the_bottleneck():
    weights = grouped_weights(LABELS, 0)
    rotation = 3 * ortho_group.rvs(16, random_state=1)
    found = compare_channels(describe_channels(weights, 0), describe_channels(weights @ rotation, 1))
    assert tuple(found) == CHANNEL_MEASURES
    assert found["cluster_agreement"] == 1
    assert found["principal_angle"] == pytest.approx(0, abs=1e-6)


def test_planted_clusters_are_found_and_their_shuffling_seen():
    shuffled = np.random.default_rng(2).permutation(LABELS)
    before, same, other = (
        describe_channels(grouped_weights(labels, seed), 0)
        for labels, seed in ((LABELS, 0), (LABELS, 1), (shuffled, 2))
    )
    assert compare_channels(before, same)["cluster_agreement"] == 1
    changed = compare_channels(before, other)
    assert abs(changed["cluster_agreement"]) < 0.15
    assert changed["principal_angle"] > 0.8


def test_principal_angle_by_hand():
    # spans of (e1, e2, e3) and (e1, cos t e2 + sin t e4, e3): angles 0, 0, t
    t = 0.6
    before, after = np.zeros((5, 3)), np.zeros((5, 3))
    before[[0, 1, 2], [0, 1, 2]] = 1
    after[0, 0] = after[2, 2] = 1
    after[[1, 3], 1] = np.cos(t), np.sin(t)
    found = compare_channels(describe_channels(before, 0), describe_channels(after, 0))
    assert found["principal_angle"] == pytest.approx(t / 3)


def test_only_leading_directions_count():
    rng = np.random.default_rng(0)
    left, right = np.linalg.qr(rng.normal(size=(40, 8)))[0], ortho_group.rvs(8, random_state=0)
    strong, weak = np.diag([5.0, 4, 3, 0.1, 0.1, 0.1, 0.1, 0.1]), np.diag([5.0, 4, 3, 0, 0, 0, 0, 0])
    found = compare_channels(
        describe_channels(left @ strong @ right, 0), describe_channels(left @ weak @ right, 0)
    )
    assert found["principal_angle"] == pytest.approx(0, abs=1e-6)


def test_weights_of_zero_and_tiny_rois():
    nothing = describe_channels(np.zeros((6, 4), np.float32), 0)
    something = describe_channels(np.eye(6, 4), 0)
    assert compare_channels(nothing, nothing) == {"cluster_agreement": 1.0, "principal_angle": 0.0}
    assert compare_channels(nothing, something)["principal_angle"] == pytest.approx(np.pi / 2)
    single = describe_channels(np.ones((1, 4)), 0)
    assert compare_channels(single, single)["cluster_agreement"] == 1
    with pytest.raises(InputError, match="found 6 and 1"):
        compare_channels(nothing, single)


def test_inputs_are_left_alone_and_the_global_seed_too():
    weights = grouped_weights(LABELS, 0)
    copy, state = weights.copy(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = describe_channels(weights, 3), describe_channels(weights, 3)
    np.testing.assert_array_equal(first.clusters, second.clusters)
    np.testing.assert_array_equal(weights, copy)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_tails():
    assert [tail(name) for name in ("wasserstein", "principal_angle", "cluster_agreement", "r2_change")] == [
        "greater",
        "greater",
        "less",
        "two-sided",
    ]


def test_every_measure_has_its_tail():
    two_sided = {"depth_shift", "confidence_change", "scale_change", "r2_change"}
    for name in (*MEASURES, *CHANNEL_MEASURES):
        side = "less" if name == "cluster_agreement" else "greater"
        assert tail(name) == ("two-sided" if name in two_sided else side), name


def test_measures_of_layers_by_hand():
    before = [[1, 0, 0], [0.6, 0.3, 0.1], [0.5, 0.5, 0], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]]
    after = [[0, 1, 0], [0.5, 0.3, 0.2], [0.5, 0, 0.5], [0.5, 0.25, 0.25], [0.5, 0.5, 0]]
    rest = {"space": None, "scale": None, "r2": np.zeros(5, np.float32)}
    found = rewiring_measures(
        *(Selected(layers=("a", "b", "c"), layer=np.array(rows), **rest) for rows in (before, after))
    )
    np.testing.assert_allclose(found["wasserstein"], [0.5, 0.1, 0.25, 0.375, 0.25])
    np.testing.assert_allclose(found["depth_shift"], [0.5, 0.1, 0.25, 0.375, -0.25])
    # disjoint: 1 bit; third voxel: half of each is shared, the rest is disjoint
    np.testing.assert_allclose(found["jensen_shannon"][[0, 2]], [1, 0.5])
    # the third voxel's layers tie before and after; the first counts
    np.testing.assert_array_equal(found["top_layer_changed"], [1, 0, 0, 0, 0])
    # entropies of the last two in bits: 0 → 1.5, and log 3 → 1
    bits = np.log2(3)
    np.testing.assert_allclose(found["confidence_change"][[0, 3, 4]], [0, -1.5 / bits, 1 - 1 / bits])


def test_confidence_and_divergence_keep_to_their_range():
    for n_layers in range(2, 17):
        uniform = np.full((1, n_layers), 1 / n_layers, np.float32)
        assert 0 <= confidence(uniform)[0] < 1e-6
        # float32 distributions that share no layer may sum to slightly more than 1
        none = np.zeros_like(uniform)
        assert 1 - 1e-6 < jensen_shannon(np.hstack([uniform, none]), np.hstack([none, uniform]))[0] <= 1
    rounded = np.array([[1 - 2**-24]], np.float32)
    assert wasserstein(np.ones((1, 1), np.float32), rounded)[0] == 0  # one layer: nowhere to move


def test_measures_are_computed_in_double_precision():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(6), (2, 50)).astype(np.float32)
    np.testing.assert_array_equal(jensen_shannon(p, q), jensen_shannon(p.astype(float), q.astype(float)))
    np.testing.assert_array_equal(wasserstein(p, q), wasserstein(p.astype(float), q.astype(float)))
    tiny = np.float32(2**-30)
    found = rewiring_measures(
        replace(BEFORE, scale=np.full(3, tiny), r2=np.full(3, -(2**24), np.float32)),
        replace(AFTER, scale=np.ones(3, np.float32), r2=np.ones(3, np.float32)),
    )
    assert (found["scale_change"] == 1 - 2**-30).all()  # single precision cannot represent 1 − 2⁻³⁰
    assert (found["r2_change"] == 2**24 + 1).all()  # nor 2²⁴ + 1


def test_mappings_of_other_layers_or_more_voxels_cannot_be_compared():
    with pytest.raises(InputError, match="share layers"):
        rewiring_measures(BEFORE, replace(AFTER, layers=("b", "a", "c")))
    with pytest.raises(InputError, match="share voxels: found 2 and 3"):
        rewiring_measures(replace(BEFORE, layer=BEFORE.layer[:2]), AFTER)


def test_the_summary_of_an_roi_is_a_mean():
    found = summarise_rois({"x": np.array([0.0, 1, 5, 100])}, [Roi("V1", np.array([0, 1, 2]), 1.0)], None)
    assert found == {"all": {"x": 26.5}, "V1": {"x": 2.0}}


def test_voxels_are_clustered_by_direction_not_by_length():
    # two directions, each read weakly, strongly and very strongly
    weights = np.kron(np.eye(2), np.array([[1.0], [10], [100]]))
    found = describe_channels(weights, 0, n_clusters=2).clusters
    assert (found == found[[0, 0, 0, 3, 3, 3]]).all() and found[0] != found[3]


def test_k_means_starts_often_enough_to_find_all_clusters():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, 3))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    weights = np.repeat(centres, 8, axis=0) + 0.05 * rng.normal(size=(96, 3))
    first, *others = (describe_channels(weights, seed, n_clusters=12) for seed in range(8))
    # from a single start, two seeds in three end in a different partition
    assert [compare_channels(first, other)["cluster_agreement"] for other in others] == [1] * 7


def test_the_seed_is_that_of_k_means():
    weights = np.random.default_rng(0).normal(size=(80, 12))
    first, *others = (describe_channels(weights, seed) for seed in range(4))
    assert min(compare_channels(first, other)["cluster_agreement"] for other in others) < 1


def test_numbers_of_clusters_and_directions():
    weights = np.random.default_rng(0).normal(size=(40, 8))
    found = describe_channels(weights, 0)
    assert len(np.unique(found.clusters)) == 4 and found.directions.shape == (40, 3)
    found = describe_channels(weights, 0, n_clusters=6, n_directions=2)
    assert len(np.unique(found.clusters)) == 6 and found.directions.shape == (40, 2)


def test_channels_are_compared_either_way_round():
    something, nothing = describe_channels(np.eye(6, 4), 0), describe_channels(np.zeros((6, 4)), 0)
    assert compare_channels(something, nothing)["principal_angle"] == pytest.approx(np.pi / 2)
    with pytest.raises(InputError, match="found 1 and 6"):
        compare_channels(describe_channels(np.ones((1, 4)), 0), nothing)
    # two directions of two: (e1, e2) and (e1, cos t e2 + sin t e3) have the angles 0 and t
    t = 0.6
    before, after = np.eye(4, 2), np.eye(4, 2)
    after[1:3, 1] = np.cos(t), np.sin(t)
    found = compare_channels(describe_channels(before, 0), describe_channels(after, 0))
    assert found["principal_angle"] == pytest.approx(t / 2)
