"""Assigning trials to rows, and averages checked by hand."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from harness.brains.repeats import (
    average_sessions,
    plan_rows,
    prepare_session,
)
from harness.storage.errors import InputError

PICTURES = [np.array([7, 3, 7]), np.array([3, 9, 7, 3])]


def test_repeats_of_a_picture_are_one_row_over_all_sessions() -> None:
    rows = plan_rows(PICTURES, [1, 4], "stimulus")
    assert rows.pictures.tolist() == [3, 7, 9]
    assert rows.n_repeats.tolist() == [3, 3, 1]
    assert [part.tolist() for part in rows.of_session] == [[1, 0, 1], [0, 2, 1, 0]]
    assert rows.session is None


def test_repeats_of_a_picture_are_one_row_per_session() -> None:
    rows = plan_rows(PICTURES, [1, 4], "session")
    assert rows.pictures.tolist() == [3, 7, 3, 7, 9]
    assert rows.n_repeats.tolist() == [1, 2, 2, 1, 1]
    assert rows.session is not None
    assert rows.session.tolist() == [1, 1, 4, 4, 4]
    assert [part.tolist() for part in rows.of_session] == [[1, 0, 1], [2, 4, 3, 2]]


def test_every_trial_can_be_a_row() -> None:
    rows = plan_rows(PICTURES, [1, 4], "none")
    assert rows.pictures.tolist() == [7, 3, 7, 3, 9, 7, 3]
    assert rows.n_repeats.tolist() == [1] * 7
    assert rows.session is not None
    assert rows.session.tolist() == [1, 1, 1, 4, 4, 4, 4]


def test_a_session_is_known_where_no_row_averages_over_sessions() -> None:
    rows = plan_rows([np.array([1, 2, 1]), np.array([5, 6])], [1, 2], "stimulus")
    assert rows.session is not None
    assert rows.session.tolist() == [1, 1, 2, 2]


def sessions(*responses: list[list[float]]) -> Iterator[tuple[str, np.ndarray]]:
    for number, values in enumerate(responses, 1):
        yield f"session {number}", np.array(values, dtype=np.float32)


def test_averages_noise_and_total_variance_by_hand() -> None:
    rows = plan_rows([np.array([5, 8, 5]), np.array([8, 2])], [1, 2], "stimulus")
    found = average_sessions(sessions([[1, 0], [2, 5], [4, 2]], [[6, 1], [7, 2]]), rows, 2, standardise=False)
    # image 2: 7; image 5: 1 and 4; image 8: 2 and 6
    np.testing.assert_allclose(found.responses, [[7, 2], [2.5, 1], [4, 3]])
    # squared distances from the mean of the image: 2 · 1.5² + 2 · 2² = 12.5 over 5 trials − 3 images
    np.testing.assert_allclose(found.noise_variance, [12.5 / 2, (2 + 8) / 2])
    np.testing.assert_allclose(
        found.total_variance, [np.var([1, 2, 4, 6, 7], ddof=1), np.var([0, 5, 2, 1, 2], ddof=1)]
    )
    assert found.n_degrees == 2
    assert found.usable.all()


@pytest.mark.parametrize("average", ["session", "none"])
def test_noise_is_between_trials_of_a_picture_whatever_the_rows_are(average: str) -> None:
    rows = plan_rows([np.array([5, 8, 5]), np.array([8, 2])], [1, 2], average)  # type: ignore[arg-type]
    found = average_sessions(sessions([[1, 0], [2, 5], [4, 2]], [[6, 1], [7, 2]]), rows, 2, standardise=False)
    np.testing.assert_allclose(found.noise_variance, [12.5 / 2, (2 + 8) / 2])
    assert found.n_degrees == 2


def test_without_repeats_the_noise_is_unknown() -> None:
    rows = plan_rows([np.array([5, 8, 2])], [1], "stimulus")
    found = average_sessions(sessions([[1.0], [2], [4]]), rows, 1, standardise=True)
    assert found.n_degrees == 0
    assert np.isnan(found.noise_variance).all()


def test_a_session_is_standardised_per_voxel() -> None:
    values = np.array([[1, 100], [2, 300], [6, 200]], dtype=np.float32)
    assert prepare_session(values, standardise=True).all()
    # mean 3, squares 4 + 1 + 9 = 14, over two: √7
    np.testing.assert_allclose(values, [[-2 / 7**0.5, -1], [-1 / 7**0.5, 1], [3 / 7**0.5, 0]], atol=1e-6)
    rows = plan_rows([np.array([0, 1, 0]), np.array([0, 1, 1])], [1, 2], "stimulus")
    responses = np.random.default_rng(0).normal(5, 3, (2, 3, 4)).astype(np.float32)
    expected = (responses - responses.mean(axis=1, keepdims=True)) / responses.std(
        axis=1, ddof=1, keepdims=True
    )
    named = [(str(place), part.copy()) for place, part in enumerate(responses)]
    found = average_sessions(named, rows, 4, standardise=True)
    np.testing.assert_allclose(found.responses[0], expected[[0, 0, 1], [0, 2, 0]].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.responses[1], expected[[0, 1, 1], [1, 1, 2]].mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 3.25, np.nan, np.inf, 3e38])
@pytest.mark.parametrize("standardise", [True, False])
def test_voxels_without_a_signal_in_any_session_are_left_out_and_said_so(
    value: float, standardise: bool, caplog: pytest.LogCaptureFixture
) -> None:
    responses = np.random.default_rng(1).normal(size=(2, 4, 5)).astype(np.float32)
    if value == 3e38:  # its square overflows float32, but not the accumulator
        responses[1, :, 2] = [value, -value, np.inf, 0]
    else:
        responses[1, :, 2] = value
    whole = [responses[:, :, voxels].copy() for voxels in ([0, 1, 3, 4], [0, 1, 2, 3, 4])]
    rows = plan_rows([np.array([0, 1, 2, 0]), np.array([2, 2, 1, 0])], [1, 2], "stimulus")
    named = [[(str(place), part) for place, part in enumerate(parts)] for parts in whole]
    with caplog.at_level(logging.WARNING):
        without = average_sessions(named[0], rows, 4, standardise)
        assert not caplog.text
        found = average_sessions(named[1], rows, 5, standardise)
    assert found.usable.tolist() == [True, True, False, True, True]
    np.testing.assert_array_equal(found.responses, without.responses)
    np.testing.assert_array_equal(found.noise_variance, without.noise_variance)
    assert "1 of 5 voxels are constant or not finite in a session and are dropped" in caplog.text


def test_a_session_with_too_few_voxels_is_damaged() -> None:
    rows = plan_rows([np.array([0, 1]), np.array([0, 1])], [1, 2], "stimulus")
    good = np.arange(8, dtype=np.float32).reshape(2, 4)
    bad = good.copy()
    bad[:, :3] = 0
    with pytest.raises(InputError, match="the second: 3 of 4 voxels are constant or not finite"):
        average_sessions([("the first", good.copy()), ("the second", bad)], rows, 4, standardise=True)
    halves = [good.copy(), good.copy()]
    halves[0][:, :2] = halves[1][:, 2:] = 1
    with pytest.raises(InputError, match=r"the second: 2 of 4 voxels .* and 0 have signal"):
        average_sessions(zip(["the first", "the second"], halves, strict=True), rows, 4, standardise=True)


def test_memory_is_the_result_and_one_session() -> None:
    n_sessions, n_trials, n_voxels = 12, 50, 2000
    rng = np.random.default_rng(2)
    pictures = [rng.integers(0, 150, n_trials) for _ in range(n_sessions)]
    rows = plan_rows(pictures, list(range(n_sessions)), "stimulus")
    result, session = len(rows.pictures) * n_voxels * 4, n_trials * n_voxels * 4

    def stream() -> Iterator[tuple[str, np.ndarray]]:
        buffer = np.empty((n_trials, n_voxels), dtype=np.float32)
        for number in range(n_sessions):
            rng.standard_normal(dtype=np.float32, out=buffer)
            buffer[:, number] = 0  # so that columns are dropped
            yield str(number), buffer

    tracemalloc.start()
    found = average_sessions(stream(), rows, n_voxels, standardise=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.responses.shape == (len(rows.pictures), n_voxels - n_sessions)
    assert peak < result + 2 * session + 40 * n_voxels * 8
    assert n_sessions * session > 2 * (result + 2 * session)
