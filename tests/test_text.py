"""Readable sizes and durations."""

from __future__ import annotations

import pytest

from harness.storage.text import (
    format_bytes,
    format_seconds,
)


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (7, "7.0 B"),
        (512, "512 B"),
        (1200, "1.2 kB"),
        (2.5e6, "2.5 MB"),
        (34e6, "34 MB"),
        (999.6e6, "1.0 GB"),
        (1.234e10, "12 GB"),
        (2e12, "2.0 TB"),
        (5e15, "5000 TB"),
        (None, "?"),
    ],
)
def test_bytes(n_bytes: float | None, text: str) -> None:
    assert format_bytes(n_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (7, "7 s"),
        (99.9, "100 s"),
        (100, "2 min"),
        (600, "10 min"),
        (5940, "1.6 h"),
        (7200, "2.0 h"),
        (172_800, "2.0 d"),
        (259_200, "3.0 d"),
        (None, "?"),
    ],
)
def test_seconds(seconds: float | None, text: str) -> None:
    assert format_seconds(seconds) == text
