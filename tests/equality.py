"""Equality of what dataclasses with arrays hold."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from harness.mapping import Mapping


def assert_equal(one: Mapping, other: Mapping) -> None:
    for field in fields(Mapping):
        np.testing.assert_array_equal(
            getattr(one, field.name), getattr(other, field.name), err_msg=field.name
        )
