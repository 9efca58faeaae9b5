"""Subsets and splits of images: nested, by class, by group."""

from __future__ import annotations

import numpy as np
import pytest

from harness.storage.errors import InputError
from tasks.splits import split_rows
from tasks.subsets import (
    draw_per_class,
    draw_rows,
)

LABELS = np.array([0] * 30 + [1] * 20 + [2] * 9)
NAMES = ("a", "b", "c")


def test_so_many_rows_are_drawn_by_the_seed_and_nested() -> None:
    drawn = {n: draw_rows(50, n, seed=1) for n in (5, 20, 50, 70)}
    assert len(set(drawn[20])) == 20 and set(drawn[5]) < set(drawn[20])
    np.testing.assert_array_equal(drawn[50], np.arange(50))
    np.testing.assert_array_equal(drawn[70], np.arange(50))
    assert set(draw_rows(50, 20, seed=2)) != set(drawn[20])


@pytest.mark.parametrize("seed", [0, 1, None])
def test_so_many_of_every_class_are_nested(seed: int | None) -> None:
    small, large = (draw_per_class(LABELS, n, seed, NAMES) for n in (4, 9))
    assert np.bincount(LABELS[small]).tolist() == [4, 4, 4]
    assert np.bincount(LABELS[large]).tolist() == [9, 9, 9]
    assert set(small) < set(large)
    if seed is None:
        assert small.tolist() == [0, 1, 2, 3, 30, 31, 32, 33, 50, 51, 52, 53]


def test_of_several_labels_each_has_its_number_and_images_without_any_too() -> None:
    labels = (np.arange(64)[:, None] >> np.arange(3)) & 1
    small, large = (draw_per_class(labels, n, 0, NAMES) for n in (4, 8))
    assert (labels[small].sum(axis=0) >= 4).all()
    assert (~labels[small].any(axis=1)).sum() == 4
    assert set(small) < set(large) and len(small) < 16


def test_a_class_with_fewer_images_is_named() -> None:
    with pytest.raises(InputError, match=r"n_per_class: found 10, expected at most 9, .* images of 'c'"):
        draw_per_class(LABELS, 10, 0, NAMES)


def test_a_split_takes_its_share_of_every_class() -> None:
    train, test = split_rows(LABELS, 0.3, seed=0)
    assert sorted([*train, *test]) == list(range(len(LABELS)))
    assert np.bincount(LABELS[test]).tolist() == [9, 6, 3]
    assert test.tolist() != split_rows(LABELS, 0.3, seed=1)[1].tolist()
    # at least one image, but never all
    assert [len(part) for part in split_rows(np.array([0, 0, 1]), 0.01, 0)] == [2, 1]
    assert len(split_rows(np.eye(3, dtype=int), 0.3, 0)[1]) == 1


def test_groups_stay_together() -> None:
    groups = [f"patient {index // 4}" for index in range(len(LABELS))]
    train, test = split_rows(LABELS, 0.3, 0, groups)
    assert sorted([*train, *test]) == list(range(len(LABELS)))
    assert not {groups[row] for row in train} & {groups[row] for row in test}
    assert abs(len(test) / len(LABELS) - 0.3) < 0.07
    with pytest.raises(InputError, match=r"test_share: found 0.3 of 59 images in 1 groups"):
        split_rows(LABELS, 0.3, 0, ["one"] * 59)
