"""Rows under distribution shifts, on hand-made values."""

from __future__ import annotations

import numpy as np
import pytest

from harness.config.shifts import CORRUPTION_GROUPS, CORRUPTIONS
from harness.measures import shift_rows as rows
from harness.measures.catalogue import describe, is_headline, split_name
from harness.measures.per_image import Hits
from harness.storage.errors import InputError
from harness.tracking.store.keys import metric_key, metric_name


def test_relative_drop_by_hand():
    assert rows.relative_drop(0.9, 0.5, 0.1) == pytest.approx(0.5)
    assert rows.relative_drop(0.9, 0.9, 0.1) == 0
    assert rows.relative_drop(0.9, 0.1, 0.1) == pytest.approx(1)
    assert rows.relative_drop(0.5, 0.6, 0.1) == pytest.approx(-0.25)
    for wrong in ((0.1, 0.1, 0.1), (1.2, 0.5, 0.1), (0.9, -0.1, 0.1)):
        with pytest.raises(InputError, match="relative drop: found accuracies"):
            rows.relative_drop(*wrong)


def test_corruption_error_by_hand():
    """Section 4.2 of Hendrycks & Dietterich: sums over severities first, then the mean over corruptions."""
    now, start = {"fog": np.array([0.1, 0.3]), "snow": np.array([0.6, 0.6])}, {}
    start = {"fog": np.array([0.2, 0.6]), "snow": np.array([0.5, 0.5])}
    assert rows.corruption_error(now["fog"], start["fog"]) == pytest.approx(0.5)
    assert rows.mean_corruption_error(now, start) == pytest.approx((0.5 + 1.2) / 2)
    assert rows.corruption_error(now["fog"], np.zeros(2)) is None
    assert rows.mean_corruption_error(now, start | {"fog": np.zeros(2)}) is None


def scores(share: float, n: int = 40) -> dict:
    return {"accuracy": share, "ece": 1 - share, "right": Hits(np.arange(n) < round(share * n)).encode()}


def record(corruptions: tuple[str, ...], accuracy: float, clean: float = 0.9) -> dict:
    parts = {
        f"{name}-{severity}": {"linear": scores(accuracy - 0.1 * (severity == 5))}
        for name in corruptions
        for severity in (1, 5)
    }
    return {
        "n": 40,
        "n_clean": 40,
        "hash": "x",
        "chance": 0.1,
        "clean": {"linear": scores(clean)},
        "parts": parts,
    }


def test_rows_of_all_corruptions():
    now = {"shifts": {"digits": {"corruptions": record(CORRUPTIONS, 0.6)}}}
    start = {"shifts": {"digits": {"corruptions": record(CORRUPTIONS, 0.8)}}}
    found = rows.name_shifts(now, start)
    prefix = "shift/digits/"
    assert {name.split("/")[2] for name in found} == {"corruptions", *CORRUPTION_GROUPS, *CORRUPTIONS}
    assert found[f"{prefix}fog/accuracy_1"] == 0.6 and found[f"{prefix}fog/accuracy_5"] == 0.5
    for shift in ("corruptions", "noise", "fog"):
        assert found[f"{prefix}{shift}/accuracy"] == pytest.approx(0.55)
        assert found[f"{prefix}{shift}/ece"] == pytest.approx(0.45)
        assert found[f"{prefix}{shift}/clean_accuracy"] == 0.9
        assert found[f"{prefix}{shift}/relative_drop"] == pytest.approx(0.35 / 0.8)
        assert found[f"{prefix}{shift}/corruption_error"] == pytest.approx(0.9 / 0.5)
        assert found[f"{prefix}{shift}/n_test"] == 40
    assert rows.name_shifts(start, start)[f"{prefix}corruptions/corruption_error"] == 1
    for name in found:
        assert describe(name).contains(found[name])


def test_some_corruptions_make_no_mean_over_all():
    found = rows.name_shifts({"shifts": {"a": {"corruptions": record(("fog", "pixelate"), 0.5)}}}, {})
    assert {name.split("/")[2] for name in found} == {"fog", "pixelate"}
    assert not any("corruption_error" in name for name in found)
    noise = record(CORRUPTION_GROUPS["noise"], 0.5)
    found = rows.name_shifts({"shifts": {"a": {"corruptions": noise}}}, {})
    assert {name.split("/")[2] for name in found} == {"noise", *CORRUPTION_GROUPS["noise"]}


def test_other_shifts_and_ways_to_score():
    parts = {"textures": {"linear": scores(0.5), "head": scores(0.25)}}
    clean = {"linear": scores(0.8), "head": scores(0.1)}
    family = {"n": 40, "n_clean": 40, "hash": "x", "chance": 0.1, "clean": clean, "parts": parts}
    found = rows.name_shifts({"shifts": {"shapes": {"textures": family}}}, {})
    assert found["shift/shapes/textures/accuracy"] == 0.5
    assert found["shift/shapes/textures/relative_drop"] == pytest.approx(0.3 / 0.7)
    assert found["shift/shapes/textures/head_accuracy"] == 0.25
    # a head at chance has no lead to lose
    assert "shift/shapes/textures/head_relative_drop" not in found
    assert rows.name_shifts({"probe": {}}, {}) == {}
    # a name is a name, whatever it looks like
    family = {**family, "parts": {"imagenet-3": {"linear": scores(0.5)}}, "clean": {"linear": scores(0.8)}}
    found = rows.name_shifts({"shifts": {"imagenet": {"imagenet-3": family}}}, {})
    assert {name.rpartition("/")[2] for name in found} == {
        *("accuracy", "clean_accuracy", "ece", "n_test", "relative_drop")
    }


def test_hits_are_read_by_shift():
    probes = {"shifts": {"digits": {"corruptions": record(CORRUPTIONS, 0.6)}}}
    _, parts, clean = rows.read_shift_hits(probes, "digits", "noise", "linear")
    assert len(parts) == 6 and clean.right.mean() == 0.9 and parts[0].right.mean() == 0.6
    for task, shift, scoring in (
        ("digits", "textures", "linear"),
        ("x", "noise", "linear"),
        ("digits", "noise", "head"),
    ):
        assert rows.read_shift_hits(probes, task, shift, scoring) is None


def test_names_headlines_and_mlflow():
    name = "shift/digits/noise/head_accuracy"
    parts = split_name(f"wise_ft.{name}")
    assert (parts.place, parts.shift, parts.measure, parts.interpolated) == (
        "digits",
        "noise",
        "head_accuracy",
        True,
    )
    assert metric_key(name) == "shift/digits noise head_accuracy" and metric_name(metric_key(name)) == name
    assert is_headline("shift/digits/noise/accuracy") and is_headline("shift/shapes/textures/accuracy")
    assert not is_headline("shift/digits/fog/accuracy") and not is_headline(name)
    with pytest.raises(InputError, match="such as shift/digits/noise/accuracy"):
        describe("shift/digits/noise/acuracy")
    with pytest.raises(InputError, match="unknown metric"):
        describe("shift/digits/accuracy")


def test_chance_is_the_most_frequent_class():
    assert rows.chance_accuracy(np.array([0, 0, 1, 2])) == 0.5
