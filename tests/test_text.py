"""Readable sizes and durations, and what is hidden."""

from __future__ import annotations

import pytest

from harness.storage.text import (
    format_bytes,
    format_seconds,
    hide_passwords,
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://me:secret@host:5000/x, at", "at http://me:***@host:5000/x, at"),
        ("postgresql://:secret@host/db", "postgresql://:***@host/db"),
        ("https://secret@host/x", "https://***@host/x"),
        ("Bearer hf_abcDEF0123456789 is wrong", "Bearer hf_*** is wrong"),
        # nothing secret
        ("sqlite:////data/a:b@c/mlflow.db", "sqlite:////data/a:b@c/mlflow.db"),
        ("https://host/@me and hf_hub", "https://host/@me and hf_hub"),
    ],
)
def test_passwords_and_tokens_are_hidden(text: str, shown: str) -> None:
    assert hide_passwords(text) == shown
