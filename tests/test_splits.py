"""No stimulus is on both sides, and a split comes back as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.splits import load_split, save_split, split_stimuli


@settings(max_examples=50, deadline=None)
@given(n_images=st.integers(10, 500), fraction=st.floats(0.2, 0.8), seed=st.integers(0, 2**31))
def test_split_is_disjoint_complete_and_reproducible(n_images: int, fraction: float, seed: int) -> None:
    split = split_stimuli(n_images, fraction, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([split.train, split.held_out])), np.arange(n_images))
    assert len(split.held_out) == round(fraction * n_images)
    again = split_stimuli(n_images, fraction, seed)
    np.testing.assert_array_equal(split.held_out, again.held_out)


def test_split_depends_on_the_seed() -> None:
    assert not np.array_equal(split_stimuli(100, 0.2, 0).held_out, split_stimuli(100, 0.2, 1).held_out)


@pytest.mark.parametrize(("n_images", "fraction"), [(10, 0.05), (10, 0.95), (3, 0.5)])
def test_split_too_small_is_refused(n_images: int, fraction: float) -> None:
    with pytest.raises(InputError, match=r"mapping\.held_out"):
        split_stimuli(n_images, fraction, 0)


def test_split_is_persisted(tmp_path: Path) -> None:
    split = split_stimuli(50, 0.3, seed=4)
    save_split(split, tmp_path / "split.json")
    loaded = load_split(tmp_path / "split.json")
    np.testing.assert_array_equal(loaded.train, split.train)
    np.testing.assert_array_equal(loaded.held_out, split.held_out)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"train": [1]}', '{"train": [1, 2], "held_out": [2]}', '{"train": [0.5], "held_out": [1]}',
     '{"train": [], "held_out": [1]}', '{"train": [-1], "held_out": [1]}'],
)  # fmt: skip
def test_broken_split_names_the_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(InputError, match=r"split\.json"):
        load_split(tmp_path / "split.json")
