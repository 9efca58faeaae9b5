import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from harness.config.compose import load_config
from harness.measures import rows
from harness.measures.label_scores import score_labels
from harness.measures.probes import probed_task
from harness.measures.probes.kinds import PROBE_KINDS
from harness.measures.probes.knn import knn_probe
from harness.measures.probes.linear import (
    LEARNING_RATES,
    fit_linear_layers,
    linear_probe,
)
from harness.measures.probes.zero_shot import zero_shot
from harness.storage.errors import InputError
from tasks.load import load_task


def toy(n_images, n_classes=4, n_channels=16, noise=0.15, seed=0):
    """Draw classes around orthogonal centres."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n_images) % n_classes
    features = np.eye(n_classes, n_channels)[labels] + noise * rng.normal(size=(n_images, n_channels))
    return features.astype(np.float32), labels


def test_separable_data():
    train, test = toy(80), toy(40, seed=1)
    result = linear_probe(*train, *test, seed=0, steps=200)
    assert result.scores.accuracy == 1
    assert result.lr in LEARNING_RATES
    assert result.scores.ece < 0.1
    assert knn_probe(*train, *test).scores.accuracy == 1


def test_permuted_labels_are_at_chance():
    # the noise hides the classes and makes test images independent
    (train, labels), (test, test_labels) = toy(200, noise=2), toy(400, noise=2, seed=1)
    rng = np.random.default_rng(0)
    accuracy = linear_probe(
        train, rng.permutation(labels), test, test_labels, seed=0, steps=200
    ).scores.accuracy
    assert abs(accuracy - 0.25) < 0.1
    assert abs(knn_probe(train, rng.permutation(labels), test, test_labels).scores.accuracy - 0.25) < 0.1


def test_lr_is_picked_on_validation_not_on_test():
    # after five steps the small rate has moved nowhere; test labels favour the opposite choice
    train, (test, test_labels) = toy(80, n_classes=2), toy(40, n_classes=2, seed=1)
    offset = np.array([0, 4] + [0] * 14, np.float32)  # a large common part that only the bias can undo
    result = linear_probe(
        train[0] + offset, train[1], test + offset, 1 - test_labels, 0, steps=60, learning_rates=(1e-5, 0.5)
    )
    assert result.lr == 0.5
    assert result.scores.accuracy < 0.1


def test_equal_accuracies_are_decided_by_the_loss():
    train, test = toy(80, noise=0.01), toy(40, noise=0.01, seed=1)
    result = linear_probe(*train, *test, seed=0, steps=50, learning_rates=(0.001, 0.1, 0.01))
    assert result.scores.accuracy == 1
    assert result.lr == 0.1


def test_layers_are_those_of_torch():
    features, labels = toy(30, n_channels=6, noise=0.5)
    x, y = torch.as_tensor(features, dtype=torch.float64), torch.as_tensor(labels)
    rates = [0.01, 0.3]
    found = fit_linear_layers(x, y, 4, rates, steps=20, weight_decay=0.1)
    for rate, layer in zip(rates, found, strict=True):
        weight = torch.zeros(6, 4, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.AdamW([weight], lr=rate, weight_decay=0.1)
        for _ in range(20):
            optimizer.zero_grad()
            F.cross_entropy(x @ weight, y).backward()
            optimizer.step()
        torch.testing.assert_close(layer, weight.detach(), rtol=1e-6, atol=1e-8)


def test_probe_sees_directions_only():
    (train, labels), (test, test_labels) = toy(40), toy(40, seed=1)
    rng = np.random.default_rng(0)
    scaled = train * 2.0 ** rng.integers(-3, 4, size=(40, 1)).astype(np.float32)
    args = (labels, test, test_labels, 0)
    assert linear_probe(train, *args, steps=30) == linear_probe(scaled, *args, steps=30)


def test_layer_has_a_bias():
    # directions at 0° against 60°, -60° and 180°: a line separates them, but none through the origin
    angle = np.radians(np.tile([0.0, 60, -60, 180], 10))
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    labels = np.tile([0, 1, 1, 1], 10)
    assert linear_probe(features, labels, features, labels, seed=0, steps=300).scores.accuracy == 1


def test_same_seed_same_result_and_no_global_state():
    train, test = toy(60, noise=0.6), toy(60, noise=0.6, seed=1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (linear_probe(*train, *test, seed=5, steps=50) for _ in range(2))
    assert first == second
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_a_class_with_one_image_and_one_never_trained():
    features, labels = toy(40)
    labels = labels.copy()
    labels[0] = 4
    result = linear_probe(features, labels, features[1:3], np.array([1, 6]), seed=0, steps=100)
    assert result.scores.accuracy == 0.5


def test_knn_by_hand():
    # two of class 0 at right angles to the query, one of class 1 beside it: weights 1, 1 and e^(1/.07)
    train = np.array([[0, 1], [0, -1], [5, 0]], np.float32)
    labels, query = np.array([0, 0, 1]), np.array([[1, 0]], np.float32)
    assert knn_probe(train, labels, query, np.array([1])).scores.accuracy == 1
    assert knn_probe(train, labels, query, np.array([1]), temperature=1e6).scores.accuracy == 0
    assert (
        knn_probe(train, labels, query, np.array([1]), n_neighbours=1, temperature=1e6).scores.accuracy == 1
    )


def test_zero_shot_by_hand():
    images = np.array([[2, 0], [0, 3], [3, 4]], np.float32)
    text = np.array([[10, 0], [0, 0.1]], np.float32)
    # logits at scale ln 4 · 5: (.6, .8) · 5 ln 4 differ by ln 4, so the last has probability .8
    result = zero_shot(images, text, np.array([0, 1, 0]), logit_scale=5 * np.log(4))
    sure = 1 / (1 + 4.0**-5)
    assert result.scores.accuracy == pytest.approx(2 / 3)
    assert result.scores.ece == pytest.approx((2 * (1 - sure) + 0.8) / 3, rel=1e-5)
    assert result.lr is None


def test_logit_scale_alters_calibration_only():
    images, labels = toy(40, noise=0.4)
    text = np.eye(4, 16, dtype=np.float32)
    low, high = (zero_shot(images, text, labels, scale) for scale in (1.0, 100.0))
    assert low.scores.accuracy == high.scores.accuracy
    assert low.scores.ece != high.scores.ece


def test_bad_input():
    features, labels = toy(20)
    broken = features.copy()
    broken[3, 0] = np.nan
    with pytest.raises(InputError, match="linear probe, training part: found features that are not finite"):
        linear_probe(broken, labels, features, labels, 0)
    with pytest.raises(InputError, match=r"test part.*not finite"):
        knn_probe(features, labels, broken, labels)
    with pytest.raises(InputError, match="found label -1"):
        linear_probe(features, labels - 1, features, labels, 0)
    with pytest.raises(InputError, match="found no images"):
        knn_probe(features[:0], labels[:0], features, labels)
    with pytest.raises(InputError, match="0 of them to validate on"):
        linear_probe(features[:2], labels[:2], features, labels, 0)
    text = np.eye(3, 16, dtype=np.float32)
    with pytest.raises(InputError, match="label 3, but text for 3 classes"):
        zero_shot(features, text, labels, 100.0)
    with pytest.raises(InputError, match="logit scale of 0"):
        zero_shot(features, np.eye(4, 16, dtype=np.float32), labels, 0.0)


def test_a_kind_of_probe_is_its_module_and_its_record(monkeypatch):
    """A new kind's scores and changes are named by its record alone."""
    module = types.ModuleType("harness.measures.probes.constant")
    module.probe = lambda probed, config: score_labels(np.eye(4)[0 * probed.test_labels], probed.test_labels)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    kind = replace(PROBE_KINDS[0], name="constant", delta="delta_constant")
    for user in (probed_task, rows):
        monkeypatch.setattr(user, "PROBE_KINDS", (*PROBE_KINDS, kind))
    config = load_config(["probes.steps=3", "probes.knn_k=2"])
    train, test = toy(40), toy(20, seed=1)
    task = load_task("digits", 8, 4)  # its templates are useless without a text tower
    found = probed_task.probe_features(probed_task.ProbedTask(*train, *test, task), config)
    assert found["constant_accuracy"] == 0.25
    assert {name.partition("_")[0] for name in found} == {"linear", "knn", "constant"}
    scores = {"task": {}, "probe": {"toy": found}}
    assert rows.name_probes(scores, scores, "digits")["forgetting/toy/delta_constant"] == 0
