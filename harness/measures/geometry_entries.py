"""Entries of metrics of geometry. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from harness.measures.endings import expand
from harness.measures.metric import Metric

_CODE = "harness.measures.geometry"
_NILI = "Nili et al. 2014"


def list_geometry() -> Iterator[Metric]:
    """List correlations of dissimilarities, their ceilings, and their agreement with selectors."""
    yield from expand(
        Metric(
            "rsa/<roi>/layer/<layer>",
            "RSA of layer",
            "Pearson correlation, over pairs of images, of the region's dissimilarities with the layer's: "
            "squared distances of responses and of pooled tokens, each voxel and feature at variance 1.",
            f"{_CODE}.compare_geometry",
            "Kriegeskorte et al. 2008",
            low=-1.0,
            high=1.0,
            over_subjects="interval",
        )
    )
    yield from expand(
        Metric(
            "rsa/<roi>/best_depth",
            "depth of the best layer by RSA",
            "Depth of the layer whose dissimilarities correlate best with the region's.",
            f"{_CODE}.name_geometry",
            unit="share of the depth",
            low=0.0,
            high=1.0,
            over_subjects="interval",
        )
    )
    yield from expand(
        Metric(
            "rsa/<roi>/noise_ceiling",
            "noise ceiling of RSA",
            "Correlation that the region's true dissimilarities would reach, from its voxels' noise "
            "ceilings; at step 0. Too high if voxels share noise. Absent if noise explains all.",
            f"{_CODE}.geometry_ceilings",
            low=0.0,
            high=1.0,
            over_subjects="interval",
        )
    )
    for bound, of in (("lower", "the mean of the others"), ("upper", "the mean of all")):
        yield Metric(
            f"rsa/<roi>/group_ceiling_{bound}",
            f"noise ceiling of RSA between subjects, {bound} bound",
            f"Mean correlation of a subject's dissimilarities with {of}, on pictures that all subjects saw; "
            "at step 0. Absent if no pictures are known to be shared.",
            f"{_CODE}.subject_ceilings",
            _NILI,
            low=-1.0,
            high=1.0,
        )
    for measure, title, definition in (
        (
            "layers_agreement",
            "agreement of RSA and selectors on layers",
            "Spearman correlation, over layers, of RSA's correlations with the shares of the layer selector; "
            "mean over regions.",
        ),
        (
            "regions_agreement",
            "agreement of RSA and selectors on regions",
            "Spearman correlation, over regions, of the depth of RSA's best layer with the expected depth of "
            "the selectors.",
        ),
    ):
        yield from expand(
            Metric(
                f"rsa/all/{measure}",
                title,
                f"{definition} Both use the same responses. Absent with fewer than 4 regions.",
                f"{_CODE}.name_agreement",
                low=-1.0,
                high=1.0,
                headline="whole brain",
                over_subjects="interval",
            )
        )
    yield from expand(
        Metric(
            "rsa/all/n_rois",
            "regions of the agreement",
            "Number of regions that the agreement of RSA and selectors rests on.",
            f"{_CODE}.name_agreement",
            unit="regions",
            low=4.0,
            over_subjects="mean",
        )
    )
