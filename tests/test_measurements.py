from dataclasses import replace

import numpy as np
import pytest

from harness.brains.brain import (
    Brain,
    Roi,
)
from harness.mappings.mapping import Mapping
from harness.measures.catalogue import describe
from harness.measures.image_bootstrap import (
    Change,
    delta_interval,
)
from harness.measures.per_image import Hits
from harness.measures.rows import (
    measure_brain,
    name_normalised,
    name_probes,
)
from harness.storage.errors import InputError

N_VOXELS = 12


def mapping(tops, r2=0.5, space=0.0):
    """Make a mapping with every pair of voxels on one layer of three."""
    layer = np.eye(3, dtype=np.float32)[np.repeat(tops, 2)]
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
        rois=(Roi("V1", np.arange(6), 1.0), Roi("FFC", np.arange(6, 12), 6.0)),
        noise_ceiling=np.repeat([1, 0.5], 6).astype(np.float32),
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
    # three fits of step 0; one V1 pair of the third is one layer (half the depth) off the others
    refits = [mapping(low + high), mapping([1, 0, 0, *high])]
    later = mapping([2, 2, 2, *high], r2=0.25)
    values = dict(measure_brain({0: step_0, 5: later}, refits, brain, 0))
    first, last = values[0], values[5]

    assert first["selectors/V1/expected_depth"] == 0 and first["selectors/FFC/expected_depth"] == 1
    assert first["selectors/all/scale"] == 0.25 and first["selectors/all/confidence"] == 1
    assert first["brain/all/r2"] == 0.5
    # six voxels are too few, twelve are not
    assert "brain/V1/r2_normalised" not in first and first["brain/all/r2_normalised_voxels"] == 12
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
    # distances describe, and have no p
    assert not any(name.endswith(("_p", "_p_fdr")) for name in last)
    assert last["rewiring/V1/wasserstein_excess_low"] < last["rewiring/V1/wasserstein_excess"]
    assert (last["rewiring/all/n_predicted"], last["rewiring/V1/n_predicted"]) == (12, 6)
    assert {"rewiring/V1/cluster_agreement", "rewiring/V1/principal_angle_excess"} <= set(last)


def test_voxels_that_are_not_predicted_do_not_count(brain):
    low = [0, 0, 0, 2, 2, 2]
    step_0 = [mapping(low, r2=0.0) for _ in range(3)]
    later = mapping([2, 1, 0, 2, 2, 2], r2=0.0)
    # five voxels of V1 are predicted: two move by the whole depth, two by half, one stays
    later.r2[[0, 1, 2, 3, 4]] = 0.1
    # none of FFC at the end; four at step 0, as one fit is lucky in a fifth
    for fit in step_0:
        fit.r2[6:10] = 0.03
    step_0[0].r2[10] = 0.05
    found = dict(measure_brain({0: step_0[0], 5: later}, step_0[1:], brain, 0))[5]
    counts = {place: found[f"rewiring/{place}/n_predicted"] for place in ("all", "V1", "FFC")}
    assert counts == {"all": 9, "V1": 5, "FFC": 4}
    assert found["rewiring/V1/wasserstein"] == pytest.approx((1 + 1 + 0.5 + 0.5) / 5)
    assert found["rewiring/all/wasserstein"] == pytest.approx(3 / 9)
    assert found["rewiring/V1/r2_change"] == pytest.approx(0.1)
    assert {name for name in found if name.startswith("rewiring/FFC")} == {"rewiring/FFC/n_predicted"}


def test_a_floor_is_of_the_voxels_that_count(brain):
    # the refits differ in voxels that nothing predicts
    step_0 = [mapping([0, 0, 0, 2, 2, top]) for top in (0, 1, 2)]
    later = mapping([0, 0, 0, 2, 2, 0])
    for fit in (*step_0, later):
        fit.r2[10:] = 0.0
        fit.r2[9] = 0.0
    noisy = dict(measure_brain({0: step_0[0], 5: later}, step_0[1:], brain, 0))[5]
    assert noisy["rewiring/all/wasserstein_null"] == 0
    assert "rewiring/FFC/wasserstein" not in noisy


def test_r2_over_the_ceiling_by_hand():
    r2 = np.full(24, 0.3, np.float32)
    r2[12:] = 0.1
    ceiling = np.full(24, 0.6, np.float32)
    ceiling[12:] = 0.2
    ceiling[[0, 1]] = 0.04  # too low to be divided by: these two do not count
    r2[[0, 1]] = -9
    rois = (Roi("V1", np.arange(12), 1.0), Roi("V2", np.arange(12, 24), 2.0), Roi("V3", np.arange(9), 3.0))
    found = name_normalised(r2, ceiling, rois)
    assert found == {
        "brain/all/r2_normalised": pytest.approx((10 * 0.3 + 12 * 0.1) / (10 * 0.6 + 12 * 0.2)),
        "brain/all/r2_normalised_voxels": 22,
        "brain/V1/r2_normalised": pytest.approx(0.5),
        "brain/V1/r2_normalised_voxels": 10,
        "brain/V2/r2_normalised": pytest.approx(0.5),
        "brain/V2/r2_normalised_voxels": 12,
    }


def test_alignment_is_over_predicted_voxels(brain):
    """The floor of ρ and slope stands at step 0; voxels that are never predicted do not count."""
    rois = tuple(Roi(f"V{rank}", np.arange(6) + 6 * (rank - 1), float(rank)) for rank in range(1, 6))
    places = np.random.default_rng(0).uniform(0, 90, (30, 3)).astype(np.float32)
    large = replace(
        brain,
        coords=places,
        hemisphere=np.repeat("L", 30),
        rois=rois,
        responses=np.zeros((0, 30), np.float32),
        noise_ceiling=None,
    )
    depth = np.repeat(np.arange(5), 6) / 4
    step_0 = [deep(depth + noise) for noise in (0.0, 0.01, -0.01)]
    lost = replace(step_0[0], r2=np.where(np.arange(30) < 24, 0.3, 0.0).astype(np.float32))
    values = dict(measure_brain({0: step_0[0], 5: lost}, step_0[1:], large, 0))
    first, last = values[0], values[5]
    assert first["alignment/all/hierarchy_rois"] == first["alignment/all/hierarchy"] == pytest.approx(1.0)
    assert first["alignment/all/slope"] == pytest.approx(1.0, abs=0.02)
    assert first["alignment/all/hierarchy_rois_p_permutation"] == pytest.approx(2 / 120)
    assert (first["alignment/all/n_rois"], first["alignment/all/n_predicted"]) == (5, 30)
    assert {"alignment/all/slope_null_sd", "alignment/all/hierarchy_rois_null_mean"} <= set(first)
    # predicted at step 0: they still count
    assert last["alignment/all/n_predicted"] == 30
    never = [replace(fit, r2=lost.r2) for fit in step_0]
    (_, values) = next(iter(measure_brain({0: never[0]}, never[1:], large, 0)))
    assert (values["alignment/all/n_rois"], values["alignment/all/n_predicted"]) == (4, 24)
    assert "selectors/V5/layer/a" not in values and "selectors/V4/layer/a" in values
    nothing = [replace(fit, r2=np.zeros(30, np.float32)) for fit in step_0]
    (_, values) = next(iter(measure_brain({0: nothing[0]}, nothing[1:], large, 0)))
    assert not any(name.startswith("alignment/") or "/layer/" in name for name in values)


def deep(depth):
    """A mapping whose voxels read two layers, in shares that give these depths."""
    share = depth.clip(0, 1)[:, None]
    layer = np.concatenate([1 - share, share], axis=1).astype(np.float32)
    r2 = np.full(len(depth), 0.3, np.float32)
    return Mapping(layers=("a", "b"), layer=layer, r2=r2, correlation=r2, steps=0, family="layer_ridge")


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


def test_intervals_of_forgetting_and_numbers_of_images_are_rows():
    before, after = np.arange(50) < 40, np.arange(50) < 25
    hits = {name: Hits(right).encode() for name, right in (("before", before), ("after", after))}
    content = {
        when: {
            "task": {"accuracy": 0.5},
            "probe": {"shapes": {"linear_accuracy": float(right.mean()), "knn_accuracy": 0.5}},
            "images": {"shapes": {"n": 50, "hash": "x", "right": {"linear": hits[when]}}},
        }
        for when, right in (("before", before), ("after", after))
    }
    values = name_probes(content["after"], content["before"], "digits")
    assert values["probe/shapes/n_test"] == 50
    low, high = delta_interval(Change(Hits(before), Hits(after)))
    assert [values[f"forgetting/shapes/delta_lp_{end}"] for end in ("low", "high")] == [low, high]
    assert values["forgetting/shapes/delta_lp"] == pytest.approx(-0.3)
    assert low < -0.3 < high
    # nearest neighbours left no record of images
    assert "forgetting/shapes/delta_knn" in values and "forgetting/shapes/delta_knn_low" not in values
    at_start = name_probes(content["before"], content["before"], "digits")
    assert at_start["forgetting/shapes/delta_lp_low"] == at_start["forgetting/shapes/delta_lp_high"] == 0
    assert all(describe(name).contains(value) for name, value in values.items())
    content["after"]["images"]["shapes"]["hash"] = "y"
    with pytest.raises(InputError, match="probes of shapes: found other test images"):
        name_probes(content["after"], content["before"], "digits")
