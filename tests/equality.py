"""Equality of dataclasses that hold arrays."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from harness.mappings.mapping import Mapping


def assert_equal(one: Mapping, other: Mapping) -> None:
    for field in fields(Mapping):
        found, expected = getattr(one, field.name), getattr(other, field.name)
        if not isinstance(found, dict) or not isinstance(expected, dict):
            found, expected = {"": found}, {"": expected}
        assert set(found) == set(expected), field.name
        for name, value in found.items():
            np.testing.assert_array_equal(value, expected[name], err_msg=f"{field.name} {name}")
