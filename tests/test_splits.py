"""No picture is on both sides, the default draw never changes, and a split is read back as it was."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from made_study import make_brain

from harness.brains.brain import Brain
from harness.config.mapping import FactorTopyConfig
from harness.mappings.splits import (
    Split,
    load_split,
    number_pictures,
    save_split,
    split_brain,
    split_by_list,
    split_by_seed,
    split_by_session,
    split_stimuli,
)
from harness.storage.errors import InputError


def assert_no_picture_on_both_sides(split: Split, ids: np.ndarray) -> None:
    assert not np.intersect1d(ids[split.train], ids[split.held_out]).size
    assert (np.diff(split.train) > 0).all()
    assert (np.diff(split.held_out) > 0).all()
    assert min(len(split.train), len(split.held_out)) >= 2


def rows_of(n_images: int, **known: Any) -> Brain:
    """Make a brain in which only its rows matter."""
    brain = make_brain()
    responses = np.zeros((n_images, brain.n_voxels), np.float32)
    return replace(brain, responses=responses, **{"stimulus_ids": np.arange(n_images), **known})


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


def test_the_default_draw_is_a_permutation_of_the_rows() -> None:
    expected = np.sort(np.random.default_rng(3).permutation(40)[:8])
    np.testing.assert_array_equal(split_stimuli(40, 0.2, 3).held_out, expected)
    for ids in (np.arange(40), np.arange(40) + 500, np.array([f"image-{row}" for row in range(40, 0, -1)])):
        found = split_brain(rows_of(40, stimulus_ids=ids), FactorTopyConfig(), 3)
        np.testing.assert_array_equal(found.held_out, expected)


@pytest.mark.parametrize(("n_images", "fraction"), [(10, 0.05), (10, 0.95), (3, 0.5)])
def test_split_too_small_is_refused(n_images: int, fraction: float) -> None:
    with pytest.raises(InputError, match=r"mapping\.held_out"):
        split_stimuli(n_images, fraction, 0)


ids_with_repeats = st.lists(st.integers(0, 30), min_size=12, max_size=90).map(np.array)


@settings(max_examples=60, deadline=None)
@given(ids=ids_with_repeats, fraction=st.floats(0.2, 0.8), seed=st.integers(0, 2**31))
def test_repeats_stay_together_in_a_drawn_split(ids: np.ndarray, fraction: float, seed: int) -> None:
    n_pictures = len(np.unique(ids))
    assume(2 <= round(n_pictures * fraction) <= n_pictures - 2)
    split = split_by_seed(number_pictures(ids), fraction, seed)
    assert_no_picture_on_both_sides(split, ids)
    assert len(split.train) + len(split.held_out) == len(ids)
    assert len(np.unique(ids[split.held_out])) == round(n_pictures * fraction)


@settings(max_examples=60, deadline=None)
@given(ids=ids_with_repeats, n_sessions=st.integers(2, 6), seed=st.integers(0, 2**31))
def test_sessions_are_held_out_whole_and_share_no_picture(
    ids: np.ndarray, n_sessions: int, seed: int
) -> None:
    session = np.arange(len(ids)) * n_sessions // len(ids) + 1
    try:
        split = split_by_session(number_pictures(ids), session, 0.5, seed)
    except InputError:  # too many pictures occur in every session
        return
    assert_no_picture_on_both_sides(split, ids)
    assert not np.intersect1d(session[split.train], session[split.held_out]).size
    # a held-out session is scored whole, and only rows that would leak are left out
    assert set(split.held_out) == set(np.flatnonzero(np.isin(session, session[split.held_out])))
    left_out = np.setdiff1d(np.arange(len(ids)), np.concatenate([split.train, split.held_out]))
    assert np.isin(ids[left_out], ids[split.held_out]).all()


def test_sessions_by_hand(caplog: pytest.LogCaptureFixture) -> None:
    ids = np.array([0, 1, 2, 3, 4, 0, 5, 6])
    session = np.array([1, 1, 2, 2, 2, 3, 3, 3])
    drawn = np.random.default_rng(0).permutation([1, 2, 3])[0]
    with caplog.at_level(logging.WARNING):
        split = split_brain(
            rows_of(8, stimulus_ids=ids, session=session),
            FactorTopyConfig(held_out=0.3, held_out_by="session"),
            0,
        )
    by_hand = {1: ([2, 3, 4, 6, 7], [0, 1]), 2: ([0, 1, 5, 6, 7], [2, 3, 4]), 3: ([1, 2, 3, 4], [5, 6, 7])}
    train, held_out = by_hand[int(drawn)]
    assert (split.train.tolist(), split.held_out.tolist()) == (train, held_out)
    assert ("1 of 8 rows repeat a picture of a held-out session" in caplog.text) == (drawn != 2)
    with pytest.raises(InputError, match=r"mapping\.held_out: 0\.1 of 3 sessions leaves 3 to fit on and 0"):
        split_by_session(ids, session, 0.1, 0)


def test_shared_pictures_are_held_out() -> None:
    ids = np.array([7, 7, 8, 9, 9, 10])
    shared = np.array([True, False, False, False, True, False])  # one row of a picture may lack the mark
    split = split_brain(
        rows_of(6, stimulus_ids=ids, shared=shared), FactorTopyConfig(held_out_by="shared"), 0
    )
    assert (split.train.tolist(), split.held_out.tolist()) == ([2, 5], [0, 1, 3, 4])
    with pytest.raises(
        InputError, match=r"mapping\.held_out_by: .*all subjects saw: this leaves 1 rows to fit"
    ):
        split_brain(
            rows_of(3, shared=np.array([True, True, False])), FactorTopyConfig(held_out_by="shared"), 0
        )


@pytest.mark.parametrize("kind", ["session", "shared"])
def test_what_a_brain_does_not_know_it_is_not_split_by(kind: str) -> None:
    with pytest.raises(InputError, match=rf"held_out_by: found {kind}, but brain made does not say"):
        split_brain(rows_of(20), FactorTopyConfig(held_out_by=kind), 0)  # type: ignore[arg-type]


NUMBERS = np.array([13, 20, 13, 27, 34, 20])
NAMES = np.array(["a", "b", "a", "c", "d", "b"])


@pytest.mark.parametrize(
    ("ids", "name", "content"),
    [
        (NUMBERS, "list.txt", "13\n\n 27 \n"),
        (NUMBERS, "list.json", "[13, 27]"),
        (NUMBERS, "list.json", '["13", 27]'),
        (NUMBERS, "list.json", '{"ids": [13, 27]}'),
        (NUMBERS, "list.json", '{"indices": [0, 2, 3]}'),
        (NUMBERS, "list.json", '{"indices": [3, 2]}'),  # row 0 shows what row 2 shows
        (NUMBERS, "split.json", '{"train": [1, 4, 5], "held_out": [0, 2, 3]}'),
        (NAMES, "list.txt", "a\nc"),
        (NAMES, "list.json", '["c", "a"]'),
        (NAMES, "list.json", '{"indices": [2, 3]}'),
    ],
)
def test_a_list_says_what_is_held_out(tmp_path: Path, ids: np.ndarray, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    brain = rows_of(6, stimulus_ids=ids)
    config = FactorTopyConfig(held_out_by="list", held_out_list=str(tmp_path / name))
    split = split_brain(brain, config, 0)
    assert (split.train.tolist(), split.held_out.tolist()) == ([1, 4, 5], [0, 2, 3])
    assert split.picture is not None
    assert split.picture.tolist() == [0, 1, 0, 2, 3, 1]


def test_rows_held_out_with_a_listed_one_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "list.json").write_text('{"indices": [2, 3]}')
    with caplog.at_level(logging.WARNING):
        split_by_list(NUMBERS, tmp_path / "list.json")
    assert "1 more rows show a listed picture" in caplog.text


@pytest.mark.parametrize(
    ("ids", "name", "content", "parts"),
    [
        (NUMBERS, "list.txt", "14\n28", ["found 14", "such as 13, 20, 13", "seem to count from 1"]),
        (NUMBERS, "list.txt", "13\n99", ["found 99", "such as 13"]),
        (NUMBERS, "list.txt", "13\nx", ["found x"]),
        (NUMBERS, "list.txt", "", ["a list of ids"]),
        (NUMBERS, "list.txt", "13\n20\n27\n34", ["leaves 0 rows to fit on and 6 to score on"]),
        (NUMBERS, "list.txt", "27", ["leaves 5 rows to fit on and 1 to score on"]),
        (NUMBERS, "list.json", "[13", ["not valid JSON"]),
        (NUMBERS, "list.json", "[true]", ["a list of ids"]),
        (NUMBERS, "list.json", "[]", ["a list of ids"]),
        (NUMBERS, "list.json", "3", ["a list of ids"]),
        (NUMBERS, "list.json", '{"rows": [1]}', ["a list of ids"]),
        (NUMBERS, "list.json", '{"indices": [1, 6]}', ["indices 1 to 6, expected 0 to 5", "count from 1"]),
        (NUMBERS, "list.json", '{"indices": [0, 6]}', ["indices 0 to 6, expected 0 to 5"]),
        (NUMBERS, "list.json", '{"indices": [0.5]}', ["a list of integers"]),
        (
            NUMBERS,
            "list.json",
            '{"train": [0, 1, 5], "held_out": [2, 3]}',
            ["in rows of both 'train' and 'held_out'"],
        ),
        (NUMBERS, "list.json", '{"train": [0, 2], "held_out": [3, 7]}', ["other stimuli than the brain's 6"]),
        (NAMES, "list.txt", "a\ne", ["unknown stimulus 'e'", "a, b, c, d"]),
    ],
)
def test_a_list_that_is_wrong_is_named(
    tmp_path: Path, ids: np.ndarray, name: str, content: str, parts: list[str]
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as raised:
        split_by_list(ids, tmp_path / name)
    for part in [str(tmp_path / name), *parts]:
        assert part in str(raised.value)


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("list.txt", "list.json"):
        with pytest.raises(InputError, match=f"{name}: no such file"):
            split_by_list(NUMBERS, tmp_path / name)
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"list\.txt: not a readable text file"):
        split_by_list(NUMBERS, tmp_path / "list.txt")


def test_pictures_are_numbered_as_they_appear() -> None:
    assert number_pictures(np.array([9, 3, 9, 5, 3])).tolist() == [0, 1, 0, 2, 1]
    assert number_pictures(np.array(["x", "a", "x"])).tolist() == [0, 1, 0]
    split = Split(np.array([0, 1]), np.array([2, 3]))
    assert split.shown_in(np.array([3, 1])).tolist() == [3, 1]
    assert replace(split, picture=np.array([0, 1, 0, 2])).shown_in(np.array([3, 2, 0])).tolist() == [2, 0, 0]


def test_split_is_persisted(tmp_path: Path) -> None:
    split = split_stimuli(50, 0.3, seed=4)
    save_split(split, tmp_path / "split.json")
    loaded = load_split(tmp_path / "split.json")
    np.testing.assert_array_equal(loaded.train, split.train)
    np.testing.assert_array_equal(loaded.held_out, split.held_out)


def test_a_split_is_of_its_stimuli_only(tmp_path: Path) -> None:
    path, ids = tmp_path / "split.json", np.array(["a", "b", "a", "c", "d", "b"])
    split = split_by_seed(number_pictures(ids), 0.5, 0)
    save_split(split, path, ids)
    loaded = load_split(path, ids)
    np.testing.assert_array_equal(loaded.held_out, split.held_out)
    assert loaded.picture is not None
    assert loaded.picture.tolist() == [0, 1, 0, 2, 3, 1]
    for others in (ids[:-1], ids[::-1].copy(), np.arange(6)):
        with pytest.raises(InputError, match=r"split\.json: made for other stimuli"):
            load_split(path, others)
    # runs from before stimuli were recorded can still be read
    content = json.loads(path.read_text())
    del content["stimuli"]
    path.write_text(json.dumps(content))
    np.testing.assert_array_equal(load_split(path, ids).train, split.train)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"train": [1]}', '{"train": [1, 2], "held_out": [2]}', '{"train": [0.5], "held_out": [1]}',
     '{"train": [], "held_out": [1]}', '{"train": [-1], "held_out": [1]}'],
)  # fmt: skip
def test_broken_split_names_the_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(InputError, match=r"split\.json"):
        load_split(tmp_path / "split.json")


def test_sessions_are_drawn_by_the_seed() -> None:
    ids, session = np.arange(12), np.repeat([1, 2, 3, 4], 3)
    config = FactorTopyConfig(held_out=0.25, held_out_by="session")
    found = set()
    for seed in range(8):
        split = split_brain(rows_of(12, stimulus_ids=ids, session=session), config, seed)
        (one,) = set(session[split.held_out])
        assert one == np.random.default_rng(seed).permutation([1, 2, 3, 4])[0]
        found.add(int(one))
    assert len(found) > 2


def test_half_of_two_sessions_is_one_and_all_is_too_many() -> None:
    ids, session = np.arange(6), np.array([1, 1, 1, 2, 2, 2])
    split = split_by_session(ids, session, 0.5, 0)
    assert (len(split.train), len(split.held_out)) == (3, 3)
    with pytest.raises(InputError, match=r"0\.9 of 2 sessions leaves 0 to fit on and 2"):
        split_by_session(ids, session, 0.9, 0)


def test_the_share_is_the_one_set() -> None:
    split = split_brain(rows_of(40), FactorTopyConfig(held_out=0.55), 3)
    assert (len(split.train), len(split.held_out)) == (18, 22)


@pytest.mark.parametrize("n_held_out", [1, 9])
def test_one_picture_on_a_side_is_too_few_however_often_it_is_shown(n_held_out: int) -> None:
    picture = np.repeat(np.arange(10), 3)
    message = rf"of 10 stimuli leaves {10 - n_held_out} to fit on and {n_held_out} to score on"
    with pytest.raises(InputError, match=message):
        split_by_seed(picture, n_held_out / 10, 0)


def test_nothing_cannot_be_split() -> None:
    with pytest.raises(InputError, match=r"of 0 stimuli leaves 0"):
        split_stimuli(0, 0.5, 0)


def test_a_brain_without_sessions_may_have_been_averaged() -> None:
    for kind, parts in (("session", ("session", r"brain\.average")), ("shared", ("all subjects",))):
        with pytest.raises(InputError) as raised:
            split_brain(rows_of(20), FactorTopyConfig(held_out_by=kind), 0)  # type: ignore[arg-type]
        for part in parts:
            assert re.search(part, str(raised.value))
        assert ("brain.average" in str(raised.value)) == (kind == "session")


def test_a_list_may_lie_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "list.txt").write_text("13\n27")
    config = FactorTopyConfig(held_out_by="list", held_out_list="~/list.txt")
    assert split_brain(rows_of(6, stimulus_ids=NUMBERS), config, 0).held_out.tolist() == [0, 2, 3]


def test_a_list_of_all_rows_of_its_pictures_is_no_reason_to_warn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "list.json").write_text('{"indices": [0, 2, 3]}')
    with caplog.at_level(logging.WARNING):
        split_by_list(NUMBERS, tmp_path / "list.json")
    assert not caplog.records


def test_the_split_of_a_run_is_a_list(tmp_path: Path) -> None:
    split = split_by_seed(number_pictures(NUMBERS), 0.5, 0)
    save_split(split, tmp_path / "split.json", NUMBERS)
    again = split_by_list(NUMBERS, tmp_path / "split.json")
    assert (again.train.tolist(), again.held_out.tolist()) == (split.train.tolist(), split.held_out.tolist())
    # a number differs from its text
    with pytest.raises(InputError, match=r"split\.json: made for other stimuli"):
        split_by_list(NUMBERS.astype(str), tmp_path / "split.json")


@pytest.mark.parametrize(("train", "held_out"), [([1, 6], [0, 2]), ([1, 4], [0, 6])])
def test_a_split_ends_where_the_stimuli_end(tmp_path: Path, train: list[int], held_out: list[int]) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": train, "held_out": held_out}))
    with pytest.raises(InputError, match="made for other stimuli than the brain's 6"):
        load_split(path, NUMBERS)
    path.write_text(json.dumps({"train": [1, 5], "held_out": [0, 2]}))
    assert load_split(path, NUMBERS).train.tolist() == [1, 5]


def test_rows_of_a_split_are_sorted_and_come_once(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text('{"train": [5, 1, 4, 4], "held_out": [3, 0, 2, 0]}')
    for ids in (NUMBERS, None):
        split = load_split(tmp_path / "split.json", ids)
        assert (split.train.tolist(), split.held_out.tolist()) == ([1, 4, 5], [0, 2, 3])


@pytest.mark.parametrize(
    "text",
    ['{"train": [[1, 2], [3, 4]], "held_out": [0]}', '{"train": [[1], [2, 3]], "held_out": [0]}',
     '{"train": 1, "held_out": [0]}', '{"train": [0.5, 1' + 400 * "0" + '], "held_out": [1]}'],
    ids=["table", "ragged", "number", "too large"],
)  # fmt: skip
def test_lists_of_a_split_are_flat_and_of_row_numbers(text: str, tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(InputError, match=r"split\.json: not a split"):
        load_split(tmp_path / "split.json")
