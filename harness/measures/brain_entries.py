"""Entries of metrics of the brain: selectors, evidence and verdict, alignment, prediction."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from harness.measures.endings import (
    SPREAD,
    expand,
)
from harness.measures.metric import (
    Better,
    Metric,
)

_DEPTH = "share of the depth"


def list_selectors() -> Iterator[Metric]:
    """List what describes where voxels read."""
    yield from expand(
        Metric(
            "selectors/<place>/expected_depth",
            "expected depth",
            "Σ_l ω_l l/(L−1) under the layer distribution ω: 0 first layer, 1 last.",
            "harness.measures.rewiring.expected_depth",
            unit=_DEPTH,
            low=0.0,
            high=1.0,
            headline="whole brain",
            over_subjects="interval",
        )
    )
    yield from expand(
        Metric(
            "selectors/<place>/confidence",
            "confidence",
            "1 − H(ω)/log L: 0 uniform, 1 a single layer.",
            "harness.measures.rewiring.confidence",
            low=0.0,
            high=1.0,
            over_subjects="interval",
        )
    )
    yield from expand(
        Metric(
            "selectors/<place>/scale",
            "scale",
            "0 reads local tokens only, 1 the global token only; absent if the mapping has no scale.",
            "harness.mappings.mapping.Mapping",
            low=0.0,
            high=1.0,
            over_subjects="interval",
        )
    )
    yield from expand(
        Metric(
            "selectors/<place>/velocity",
            "velocity of the layer distribution",
            "Wasserstein-1 distance of the place's mean layer distribution from the snapshot before's, per "
            "100 optimizer steps; family through_time only.",
            "harness.measures.velocity.region_velocity",
            unit="shares of the depth per 100 steps",
            low=0.0,
            over_subjects="interval",
        )
    )
    yield from expand(
        Metric(
            "selectors/<place>/change_step",
            "step of change",
            "Step at which the place's mean layer distribution has moved half as far from step 0 as it moves "
            "up to this snapshot; absent where it moves no farther than a refit. Family through_time only.",
            "harness.measures.velocity.change_steps",
            unit="steps",
            low=0.0,
            over_subjects="mean",
        )
    )

    yield from expand(
        Metric(
            "selectors/<place>/layer/<layer>",
            "share of layer",
            "Mean share of a layer in the layer distribution ω over predicted voxels; those of a place sum "
            "to 1. Absent with fewer than 5 such voxels. Early, middle and high areas: thirds of the ranks.",
            "harness.measures.layer_rows.name_layers",
            low=0.0,
            high=1.0,
            headline="whole brain",
            over_subjects="interval",
        )
    )


def list_verdict() -> Iterator[Metric]:
    """List evidence per layer, and what a verdict says."""
    yield from expand(
        Metric(
            "evidence/<place>/layer/<layer>",
            "weight of layer",
            "Weight of a layer in the stack of ridge regressions that predicts a region best; those of a "
            "place sum to 1.",
            "harness.mappings.layer_evidence.stacked_weights",
            "after Breiman 1996",
            low=0.0,
            high=1.0,
            over_subjects="interval",
        )
    )

    def entry(measure: str, title: str, definition: str, low: float = 0.0, **more: Any) -> Metric:
        code = "harness.measures.verdict.RegionVerdict"
        return Metric(f"verdict/<place>/{measure}", title, definition, code, low=low, **more)

    yield entry(
        "kind",
        "verdict",
        "0 unchanged, 1 loss of signal, 2 reweighted, 3 rewired.",
        high=3.0,
        headline="every place",
        heading="verdict",
        form="verdict",
        compared=("end",),
    )
    yield from expand(
        entry(
            "rewired",
            "rewired",
            "1 if the verdict is rewired, else 0; over subjects, their share.",
            high=1.0,
            over_subjects="mean",
        )
    )
    yield entry(
        "p",
        "p of the verdict",
        "p of no change beyond the degraded controls, corrected for regions and layers.",
        high=1.0,
        form="p",
    )
    r2: dict[str, Any] = {"high": 1.0, "better": "higher"}
    yield entry("r2_before", "R² at step 0", "Leave-one-out R² of the best layer at step 0.", -math.inf, **r2)
    yield entry("r2_after", "R² at the snapshot", "The same at the snapshot.", -math.inf, **r2)
    depth: dict[str, Any] = {"unit": _DEPTH, "high": 1.0}
    yield entry("preferred_before", "best layer at step 0", "Depth of the best layer at step 0.", **depth)
    yield entry("preferred_after", "best layer at the snapshot", "The same at the snapshot.", **depth)
    yield entry("depth_before", "depth at step 0", "Mean depth of the stacked weights at step 0.", **depth)
    yield entry("depth_after", "depth at the snapshot", "The same at the snapshot.", **depth)
    yield entry(
        "depth_control",
        "depth of controls",
        "The same, mean over the kinds of controls at the snapshot's R².",
        **depth,
    )
    # the kinds of harness.measures.controls
    for kind, of, bound in (
        ("response_noise", "a voxel's responses", ""),
        ("token_noise", "a channel's tokens", "; 4 at most, and response noise does the rest"),
        ("feature_noise", "a pooled feature", "; 4 at most, and response noise does the rest"),
    ):
        yield entry(
            f"matched_{kind}",
            f"{kind.replace('_', ' ')} of the control",
            f"Noise that gives the control the snapshot's R², in standard deviations of {of} at step 0: 0 if "
            f"R² did not fall{bound}.",
            unit="sd",
        )


def list_alignment() -> Iterator[Metric]:
    """List hierarchy alignment and its tests."""
    code = "harness.measures.alignment.hierarchy_alignment"
    of_regions = "harness.measures.alignment_tests.AlignmentTest"
    regions = Metric(
        "alignment/all/hierarchy_rois",
        "hierarchy alignment of regions",
        "Spearman correlation of rank and mean expected depth of predicted voxels, one point per region: 1 "
        "if depth rises with rank. Absent with fewer than 4 ranked regions.",
        of_regions,
        "after Nonaka et al. 2021",
        low=-1.0,
        high=1.0,
        better="higher",
        headline="whole brain",
        compared=("start", "end"),
        over_subjects="interval",
    )
    yield from expand(regions, SPREAD)

    def p(name: str, title: str, definition: str, compared: bool = False) -> Metric:
        return Metric(
            f"alignment/all/{name}",
            title,
            definition,
            of_regions,
            low=0.0,
            high=1.0,
            headline="whole brain" if compared else "never",
            form="p",
            compared=("start", "end") if compared else (),
        )

    yield p(
        "hierarchy_rois_p",
        "p of hierarchy alignment",
        "Two-sided p of `hierarchy_rois` against maps as smooth as this one: the larger of `_moran` and "
        "`_smooth`. Of single subjects.",
        compared=True,
    )
    yield p(
        "hierarchy_rois_p_permutation",
        "p of hierarchy alignment, permuted ranks",
        "Two-sided p of `hierarchy_rois` over permutations of ranks; too small for smooth maps.",
    )
    yield p(
        "hierarchy_rois_p_moran",
        "p of hierarchy alignment, Moran",
        "Two-sided p of `hierarchy_rois` against 999 maps by Moran spectral randomisation in each "
        "hemisphere.",
    )
    yield p(
        "hierarchy_rois_p_smooth",
        "p of hierarchy alignment, smooth process",
        "Two-sided p of `hierarchy_rois` against 999 draws of a Gaussian process fitted to the map.",
    )
    hierarchy = Metric(
        "alignment/all/hierarchy",
        "hierarchy alignment",
        "Spearman correlation of a voxel's ROI rank and its expected depth, over predicted voxels: 1 if "
        "depth rises with rank.",
        code,
        "after the brain hierarchy score of Nonaka et al. 2021",
        low=-1.0,
        high=1.0,
        better="higher",
        headline="whole brain",
        compared=("start", "end"),
        over_subjects="interval",
    )
    yield from expand(hierarchy, SPREAD, compared={"_null_sd": ("start",)})

    def line(name: str, title: str, definition: str, better: Better, main: bool = False) -> Iterator[Metric]:
        yield from expand(
            Metric(
                f"alignment/all/{name}",
                title,
                definition,
                code,
                unit=_DEPTH,
                better=better,
                headline="whole brain" if main else "never",
                above="slope of depth on rank" if main else "",
                form="signed" if main else "number",
                compared=("start", "end") if main else (),
                over_subjects="interval",
            ),
            SPREAD if main else (),
        )

    yield from line(
        "slope",
        "slope of depth on rank",
        "Least-squares slope of expected depth on ROI rank scaled to [0, 1], over predicted voxels.",
        "higher",
        main=True,
    )
    yield p(
        "slope_p",
        "p of the slope",
        "Two-sided p of the slope, as a share of the spread of depths, against maps as smooth as this one: "
        "the larger of two. Of single subjects.",
        compared=True,
    )
    yield from line("intercept_low", "b0", "The fitted line at the lowest rank.", "lower")
    yield from line("intercept_high", "b1", "The fitted line at the highest rank: b0 + slope.", "higher")
    for name, title, what in (
        ("n_predicted", "predicted voxels", "Predicted voxels of ranked regions, which alignment is over."),
        ("n_rois", "regions", "Ranked regions with at least 5 predicted voxels, parts of others left out."),
    ):
        place = f"alignment/all/{name}"
        yield from expand(Metric(place, title, what, of_regions, low=0.0, over_subjects="mean"))


def list_brain() -> Iterator[Metric]:
    """List how well responses are predicted."""
    scores = "harness.mappings.voxel_scores"
    r2 = Metric(
        "brain/<place>/r2",
        "brain R²",
        "1 − residual over total sum of squares of the responses to held-out stimuli.",
        f"{scores}.score",
        high=1.0,
        better="higher",
        headline="whole brain",
        compared=("start", "end"),
        over_subjects="interval",
    )
    yield from expand(r2)
    yield from expand(
        Metric(
            "brain/<place>/ridge_r2",
            "brain R² of a ridge on all layers",
            "R² of one ridge regression on the mean and global tokens of all layers (himalaya): what the "
            "network predicts without layers, places or scales. Compare it with `brain/<place>/r2`.",
            "harness.mappings.reference_ridge.fit_reference_ridge",
            high=1.0,
            better="higher",
            headline="whole brain",
            compared=("end",),
            over_subjects="interval",
        )
    )
    yield from expand(
        Metric(
            "brain/<place>/r2_normalised",
            "brain R² over the noise ceiling",
            "ΣR² / Σceiling over voxels with a noise ceiling of at least .05, that of the held-out stimuli; "
            "absent with fewer than 10 such voxels.",
            "harness.measures.rows.name_normalised",
            better="higher",
            over_subjects="interval",
        )
    )
    yield from expand(
        Metric(
            "brain/<place>/r2_normalised_voxels",
            "voxels with a noise ceiling",
            "Number of voxels that `r2_normalised` is over.",
            "harness.measures.rows.name_normalised",
            low=0.0,
            over_subjects="mean",
        )
    )
    yield from expand(
        Metric(
            "brain/<place>/correlation",
            "brain correlation",
            "Pearson correlation of predicted and measured responses to held-out stimuli.",
            f"{scores}.score",
            low=-1.0,
            high=1.0,
            better="higher",
            over_subjects="interval",
        )
    )
