"""Palettes are seaborn's."""

from __future__ import annotations

import numpy as np
import pytest
import seaborn as sns

from harness.plot.palettes import (
    COLOUR_BLIND,
    dark_greys,
    spread_hues,
)


@pytest.mark.parametrize("lightness", [0.03, 0.45, 0.85])
@pytest.mark.parametrize("n_colours", [1, 11, 60])
def test_hues_are_those_of_seaborn(n_colours: int, lightness: float) -> None:
    theirs = sns.husl_palette(n_colours, s=0.75, l=lightness)
    np.testing.assert_allclose(spread_hues(n_colours, 0.75, lightness), theirs, atol=1e-12)


def test_named_palettes_are_those_of_seaborn() -> None:
    assert list(COLOUR_BLIND) == sns.color_palette("colorblind").as_hex()
    for n_colours in (0, 1, 2, 5):
        assert dark_greys(n_colours) == sns.color_palette("Greys_d", n_colours).as_hex()
