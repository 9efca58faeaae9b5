from dataclasses import replace

import numpy as np
import pytest

from harness.brains.brain import (
    Brain,
    Roi,
)
from harness.mappings.mapping import Mapping
from harness.measures.rows import (
    measure_brain,
    name_probes,
)

N_VOXELS = 6


def mapping(tops, r2=0.5, space=0.0):
    """Make a mapping with every voxel on one layer of three."""
    layer = np.eye(3, dtype=np.float32)[tops]
    rng = np.random.default_rng(sum(tops))
    return Mapping(
        layers=("a", "b", "c"),
        space=np.full((N_VOXELS, 2), space, np.float32),
        layer=layer,
        scale=np.full(N_VOXELS, 0.25, np.float32),
        weights=rng.standard_normal((N_VOXELS, 4)).astype(np.float32),
        bias=np.zeros(N_VOXELS, np.float32),
        r2=np.full(N_VOXELS, r2, np.float32),
        correlation=np.full(N_VOXELS, 0.7, np.float32),
        steps=1,
    )


@pytest.fixture
def brain():
    return Brain(
        name="toy",
        stimuli=[],
        responses=np.zeros((0, N_VOXELS), np.float32),
        coords=np.zeros((N_VOXELS, 3), np.float32),
        bounding_box=np.zeros((2, 3), np.float32),
        hemisphere=np.array(["L"] * N_VOXELS),
        rois=(Roi("V1", np.arange(3), 1.0), Roi("FFC", np.arange(3, 6), 6.0)),
        noise_ceiling=np.array([1, 1, 1, 0.5, 0.5, 0.5], np.float32),
        surface=None,
        fingerprint="",
    )


PROBES = {
    "task": {"accuracy": 0.1},
    "probe": {"digits": {"linear_accuracy": 0.9}, "shapes": {"linear_accuracy": 0.8}},
}
LATER = {
    "task": {"accuracy": 0.9},
    "probe": {"digits": {"linear_accuracy": 1.0}, "shapes": {"linear_accuracy": 0.5}},
}


def test_rows_by_hand(brain):
    low, high = [0, 0, 0], [2, 2, 2]
    step_0 = mapping(low + high)
    # three fits of step 0; one V1 voxel of the third is one layer (half the depth) off the others
    refits = [mapping(low + high), mapping([1, 0, 0, *high])]
    later = mapping([2, 2, 2, *high], r2=0.25)
    values = dict(measure_brain({0: step_0, 5: later}, refits, brain, 0))
    first, last = values[0], values[5]

    assert first["selectors/V1/expected_depth"] == 0 and first["selectors/FFC/expected_depth"] == 1
    assert first["selectors/all/scale"] == 0.25 and first["selectors/all/confidence"] == 1
    assert first["brain/all/r2"] == 0.5
    assert first["brain/V1/r2_normalised"] == 0.5 and first["brain/FFC/r2_normalised"] == 1.0
    assert first["alignment/all/hierarchy"] == pytest.approx(1.0)
    assert last["alignment/all/hierarchy"] == 0  # all depths are equal
    assert not any(name.startswith("rewiring/") for name in first)

    # distances in V1 between fits of step 0: 0, 1/6, 1/6; leave-one-out means: 1/12, 1/12, 1/6
    assert last["rewiring/V1/wasserstein_null"] == pytest.approx((1 / 12 + 1 / 12 + 1 / 6) / 3)
    # from the later mapping: 1, 1 and (1 + 1 + 1/2)/3
    raw = (1 + 1 + 5 / 6) / 3
    assert last["rewiring/V1/wasserstein"] == pytest.approx(raw)
    assert last["rewiring/V1/wasserstein_excess"] == pytest.approx(raw - 1 / 9)
    assert last["rewiring/FFC/wasserstein"] == 0
    assert last["rewiring/all/wasserstein"] == pytest.approx(raw / 2)
    assert last["rewiring/all/wasserstein_weighted"] == pytest.approx(raw * 3 / 4.5)
    assert last["rewiring/V1/depth_shift"] == pytest.approx(raw)
    assert last["rewiring/all/r2_change"] == pytest.approx(-0.25)
    assert last["rewiring/V1/wasserstein_p"] < 0.05 < last["rewiring/FFC/wasserstein_p"]
    assert last["rewiring/V1/wasserstein_p_fdr"] >= last["rewiring/V1/wasserstein_p"]
    assert "rewiring/all/wasserstein_p_fdr" not in last
    assert {"rewiring/V1/cluster_agreement", "rewiring/V1/principal_angle_excess"} <= set(last)


def test_null_of_the_hierarchy_is_over_all_fits_of_step_0(brain):
    fits = [mapping([0, 0, 0, 2, 2, 2]), mapping([2, 2, 2, 0, 0, 0]), mapping([0, 0, 0, 2, 2, 2])]
    (_, values) = next(iter(measure_brain({0: fits[0]}, fits[1:], brain, 0)))
    assert values["alignment/all/hierarchy_null_mean"] == pytest.approx(1 / 3)
    assert values["alignment/all/hierarchy_null_sd"] == pytest.approx(np.std([1, -1, 1], ddof=1))
    # depth goes from 0 to 1, up or down, from the lowest to the highest rank
    assert values["alignment/all/slope_null_mean"] == pytest.approx(1 / 3)
    assert values["alignment/all/slope_null_sd"] == pytest.approx(np.std([1, -1, 1], ddof=1))


def test_what_a_family_does_not_have_gives_no_rows(brain):
    tops = [[0, 0, 0, 2, 2, 2], [0, 0, 0, 2, 2, 2], [1, 0, 0, 2, 2, 2], [2, 2, 2, 2, 2, 2]]
    absent = dict.fromkeys(("space", "scale", "weights", "bias"))
    whole = [mapping(top) for top in tops]
    plain = [replace(found, family="layer_ridge", **absent) for found in whole]

    def measure(fits):
        return dict(measure_brain({0: fits[0], 5: fits[3]}, fits[1:3], brain, 0))

    expected, found = measure(whole), measure(plain)
    missing = ("/scale", "/scale_change", "/space_displacement", "/cluster_agreement", "/principal_angle")
    for step in (0, 5):
        left_out = expected[step].keys() - found[step].keys()
        assert all(any(part in name for part in missing) for name in left_out)
        assert left_out
        assert not any(part in name for part in missing for name in found[step])
        for name, value in found[step].items():
            assert value == expected[step][name], name


def test_forgetting_is_of_probes_only():
    values = name_probes(LATER, PROBES, "digits")
    assert values["forgetting/shapes/delta_lp"] == pytest.approx(-0.3)
    assert values["task/digits/accuracy"] == 0.9
    assert values["probe/digits/linear_accuracy"] == 1.0
    assert "forgetting/digits/delta_lp" not in values
