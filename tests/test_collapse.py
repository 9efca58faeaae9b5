"""Collapse: what counts as a broken backbone, by hand-made probes files and features."""

import numpy as np
import pytest

from harness.measures.catalogue import describe
from harness.measures.collapse import (
    LEVEL,
    LOST_SHARE,
    describe_features,
    find_collapse,
    is_collapsed,
    name_collapse,
)

HEALTHY = {"finite": 1.0, "spread": 0.5, "effective_rank": 8.0}


def probes(accuracy=0.9, *, n_test=200, tasks=("digits",), weights=1.0, **features):
    """A probes file of tasks with ten classes."""
    return {
        "probe": {task: {"linear_accuracy": accuracy} for task in tasks},
        "images": {task: {"n": n_test} for task in tasks},
        "health": {
            "features": HEALTHY | features,
            "weights_finite": weights,
            "chance": dict.fromkeys(tasks, 0.1),
        },
    }


def test_features_by_hand():
    # two images at ±1 around 2 in one channel: variance 1 of a mean square of 5
    found = describe_features(np.array([[1.0, 0], [3.0, 0]], np.float32))
    assert found == pytest.approx({"finite": 1.0, "spread": 0.2, "effective_rank": 1.0})
    # three orthogonal directions of equal variance, centred
    cross = np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
    assert describe_features(cross) == pytest.approx({"finite": 1.0, "spread": 1.0, "effective_rank": 3.0})
    # variances 3 : 1, entropy of (3/4, 1/4)
    two = np.diag(np.sqrt([3.0, 1.0]))
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    found = describe_features(np.concatenate([two, -two]).astype(np.float32))
    assert found["effective_rank"] == pytest.approx(np.exp(entropy))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_unit_of_features_does_not_matter(scale):
    features = np.random.default_rng(0).normal(1, 1, size=(20, 5))
    found = describe_features((scale * features).astype(np.float32))
    assert found == pytest.approx(describe_features(features), rel=1e-5)


def test_features_that_are_all_alike_or_not_finite():
    constant = np.full((5, 3), 0.1, np.float32)
    assert describe_features(constant) == {"finite": 1.0, "spread": 0.0, "effective_rank": 1.0}
    assert describe_features(np.zeros((5, 3), np.float32))["spread"] == 0.0
    constant[0, 0] = np.nan
    assert describe_features(constant) == {"finite": pytest.approx(14 / 15)}


def test_an_unchanged_snapshot_is_not_collapsed():
    found = find_collapse(probes(), probes(), ["digits"])
    assert found is not None
    assert not found.collapsed


def test_a_probe_at_chance_is_a_collapse():
    found = find_collapse(probes(0.09), probes(0.665), ["digits"])
    assert found.probe_fell and found.collapsed and not found.degenerate


def test_a_fall_within_chance_is_none():
    # 20 images: from 14 to 9 hits is half of what the probe had over chance, but p is .1
    assert not is_collapsed(probes(0.45, n_test=20), probes(0.7, n_test=20), ["digits"])
    assert is_collapsed(probes(0.45, n_test=2000), probes(0.7, n_test=2000), ["digits"])


def test_a_small_fall_is_none_however_sure():
    lost = LOST_SHARE * (0.9 - 0.1)
    assert not is_collapsed(probes(0.91 - lost, n_test=10**5), probes(n_test=10**5), ["digits"])
    assert is_collapsed(probes(0.89 - lost, n_test=10**5), probes(n_test=10**5), ["digits"])


def test_chance_rarely_makes_a_collapse():
    # a probe at .3 of 50 test images, unchanged: both snapshots are draws
    rng = np.random.default_rng(0)
    hits = rng.binomial(50, 0.3, size=(2, 4000)) / 50
    flagged = [
        is_collapsed(probes(now, n_test=50), probes(before, n_test=50), ["digits"])
        for now, before in zip(*hits, strict=True)
    ]
    assert np.mean(flagged) <= 2 * LEVEL


def test_in_a_sequence_all_tasks_must_fall():
    before = probes(0.9, tasks=("digits", "textures"))
    forgotten = probes(0.9, tasks=("digits", "textures"))
    forgotten["probe"]["digits"]["linear_accuracy"] = 0.2
    assert not is_collapsed(forgotten, before, ["digits", "textures"])
    forgotten["probe"]["textures"]["linear_accuracy"] = 0.2
    assert is_collapsed(forgotten, before, ["digits", "textures"])


def test_tasks_with_several_labels_are_judged_by_features():
    before, now = probes(), probes(0.1)
    for file in (before, now):
        file["health"] |= {"chance": {}}
    assert not is_collapsed(now, before, ["digits"])
    now["health"]["features"]["spread"] = 1e-5
    assert is_collapsed(now, before, ["digits"])


def test_features_that_no_longer_tell_images_apart():
    assert is_collapsed(probes(spread=1e-4), probes(), ["digits"])
    assert is_collapsed(probes(effective_rank=1.01), probes(), ["digits"])
    # features that were so before are no result of fine-tuning
    assert not is_collapsed(probes(effective_rank=1.01), probes(effective_rank=1.05), ["digits"])
    assert not is_collapsed(probes(spread=1e-4), probes(spread=2e-4), ["digits"])


def test_weights_that_are_not_finite():
    assert find_collapse(probes(weights=0.999), probes(), ["digits"]).not_finite
    broken = probes()
    broken["health"]["features"] = {"finite": 0.5}
    assert find_collapse(broken, probes(), ["digits"]).not_finite


def test_rows():
    rows = name_collapse(probes(0.1, spread=1e-4), probes(), ["digits"])
    assert rows == {
        "collapse/all/collapsed": 1.0,
        "collapse/all/probe_fell": 1.0,
        "collapse/all/degenerate": 1.0,
        "collapse/all/not_finite": 0.0,
        "collapse/all/spread": 1e-4,
        "collapse/all/effective_rank": 8.0,
    }
    assert all(describe(name).contains(value) for name, value in rows.items())


def test_files_of_earlier_versions_say_nothing():
    old = {"probe": {"digits": {"linear_accuracy": 0.9}}}
    assert find_collapse(old, old, ["digits"]) is None
    assert not is_collapsed(old, old, ["digits"])
    assert name_collapse(old, old, ["digits"]) == {}
