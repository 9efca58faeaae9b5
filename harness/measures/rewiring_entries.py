"""Entries of metrics of rewiring: distances between selectors, each with its refit floor."""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.measures.endings import (
    FLOOR,
    WEIGHTED,
    expand,
)
from harness.measures.metric import (
    At,
    Better,
    Headline,
    Metric,
    Tail,
)

_REWIRING = "harness.measures.rewiring"
_DEPTH = "share of the depth"


def list_rewiring() -> Iterator[Metric]:
    """List changes of what voxels read."""

    def entry(
        measure: str,
        title: str,
        definition: str,
        tail: Tail,
        low: float = 0.0,
        high: float = 1.0,
        *,
        unit: str = "",
        code: str = "rewiring_measures",
        better: Better = "neither",
        place: str = "<place>",
        above: str = "",
        compared: tuple[At, ...] = (),
        headline: Headline = "never",
        heading: str = "raw",
    ) -> Metric:
        return Metric(
            f"rewiring/{place}/{measure}",
            title,
            definition,
            f"{_REWIRING}.{code}",
            unit=unit,
            low=low,
            high=high,
            better=better,
            above=above or f"rewiring, {title}",
            heading=heading,
            form="signed" if tail == "two-sided" else "number",
            compared=compared,
            headline=headline,
            tail=tail,
            over_subjects="interval",
        )

    wasserstein = entry(
        "wasserstein",
        "rewiring",
        "Wasserstein-1 distance of layer distributions on depth l/(L−1): Σ|CDF difference|/(L−1).",
        "greater",
        unit=_DEPTH,
        code="wasserstein",
        above="rewiring, Wasserstein",
        compared=("end",),
    )
    yield from expand(
        wasserstein,
        (*FLOOR, *WEIGHTED),
        headline={
            "_excess": "every place",
            "_excess_subjects_p": "whole brain",
            "_excess_subjects_p_fdr": "every place",
        },
        compared=dict.fromkeys(("_null", "_excess", "_excess_subjects_p"), ("end",)),
    )
    voxels = (
        entry(
            "depth_shift",
            "depth shift",
            "Change of expected depth; positive is towards deeper layers.",
            "two-sided",
            -1.0,
            unit=_DEPTH,
        ),
        entry(
            "jensen_shannon",
            "Jensen–Shannon divergence",
            "Jensen–Shannon divergence of layer distributions, base 2; blind to how far apart layers are.",
            "greater",
            unit="bit",
            code="jensen_shannon",
        ),
        entry("top_layer_changed", "top layer changed", "Share of voxels with another top layer.", "greater"),
        entry(
            "confidence_change",
            "confidence change",
            "Change of confidence; a fall means flatter layer distributions, as a loss of signal makes them.",
            "two-sided",
            -1.0,
            above="change of fit",
            heading="Δconfidence",
            headline="whole brain",
            compared=("end",),
        ),
        entry(
            "space_displacement",
            "displacement",
            "Distance that the place voxels read in the image has moved.",
            "greater",
            high=2 * math.sqrt(2),
            unit="half-widths of the image",
        ),
        entry("scale_change", "scale change", "Change of scale; positive is more global.", "two-sided", -1.0),
        entry(
            "r2_change",
            "R² change",
            "Change of held-out R²; positive is better predicted.",
            "two-sided",
            -math.inf,
            math.inf,
            better="higher",
            above="change of fit",
            heading="ΔR²",
            headline="whole brain",
            compared=("end",),
        ),
    )
    for metric in voxels:
        yield from expand(metric, (*FLOOR, *WEIGHTED))
    channels = (
        entry(
            "cluster_agreement",
            "cluster agreement",
            "Adjusted Rand index of voxel clusters by channel weights: 1 equal, about 0 by chance.",
            "less",
            -0.5,
            code="compare_channels",
            place="<roi>",
        ),
        entry(
            "principal_angle",
            "principal angle",
            "Mean principal angle between the spans over voxels of the leading channel directions.",
            "greater",
            high=math.pi / 2,
            unit="rad",
            code="compare_channels",
            place="<roi>",
        ),
    )
    for metric in channels:
        yield from expand(metric, FLOOR)
    yield from expand(
        Metric(
            "rewiring/<place>/n_predicted",
            "predicted voxels",
            "Voxels that count: held-out R² above 0.02 at step 0 (mean over its fits) or at the snapshot.",
            "harness.measures.predicted.predicted_voxels",
            unit="voxels",
            low=0.0,
            heading="voxels",
            over_subjects="mean",
        )
    )
