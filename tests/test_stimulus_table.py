"""A stimulus table is read row by row, and errors name the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.brains.grayordinates.stimulus_table import read_table
from harness.storage.errors import InputError


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "stimuli.tsv"
    path.write_text("run\tsession\timage\n1\t2\tb, c.png\n\n1\t10\ta.png\n")
    table = read_table(path)
    assert table.image.tolist() == ["b, c.png", "a.png"]
    assert table.session is not None
    assert table.session.tolist() == [2, 10]
    path = tmp_path / "stimuli.csv"
    path.write_bytes(b'\xef\xbb\xbfimage,note\r\n"b, c.png",x\r\na.png,\r\n')
    table = read_table(path)
    assert table.image.tolist() == ["b, c.png", "a.png"]
    assert table.session is None


def test_named_sessions_are_numbered_in_their_natural_order(tmp_path: Path) -> None:
    path = tmp_path / "stimuli.csv"
    path.write_text("image,session\na,ses-2\nb,ses-10\nc,ses-1\n")
    table = read_table(path)
    assert table.session is not None
    assert table.session.tolist() == [2, 3, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "found no rows"),
        ("image\n", "found a header only"),
        ("img,session\na,1\n", "unknown column 'image': expected one of img, session; did you mean 'img'"),
        ("image,image\na,b\n", "found column image twice"),
        ("image,session\na,1\nb\n", "line 3: found no session"),
        ("image,session\n,1\n", "line 2: found no image"),
        ("image\na\0\n", "line 2: found no image|not a readable table"),
        ("image,repeat\na,1\nb,1\na,1\n", "lines 2 and 4: found a, 1 twice"),
        ('image\n"a\n', "not a readable table"),
    ],
)
def test_what_a_table_lacks_is_said(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "stimuli.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"stimuli\.csv: {message}"):
        read_table(path)


def test_repeats_may_start_again_in_every_session(tmp_path: Path) -> None:
    path = tmp_path / "stimuli.csv"
    path.write_text("image,session,repeat\na,1,1\na,2,1\na,2,2\n")
    assert read_table(path).image.tolist() == ["a", "a", "a"]


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stimuli.csv"
    with pytest.raises(InputError, match=r"stimuli\.csv: no such file"):
        read_table(path)
    path.write_bytes(b"image\n\xff\xfe\n")
    with pytest.raises(InputError, match=r"stimuli\.csv: not a readable table"):
        read_table(path)
