"""The entries of the catalogue of metrics, stage by stage. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from harness.measures.endings import (
    FLOOR,
    IMAGES,
    SPREAD,
    WEIGHTED,
    expand,
)
from harness.measures.metric import (
    At,
    Better,
    Headline,
    Kind,
    Metric,
    Stage,
    Tail,
)
from harness.measures.probes.kinds import (
    PROBE_KINDS,
    ProbeKind,
)

SCORINGS = {"head": "head", **{kind.name: kind.title for kind in PROBE_KINDS}}
"""Ways to score a task, with their titles: its own head, and every kind of probe."""

STAGES: dict[Kind, Stage] = {
    "train": Stage("Training", "Logged at every optimizer step.", interpolated=False),
    "task": Stage("The fine-tuned task", "Scores of the fine-tuned head on the task's test images."),
    "probe": Stage(
        "Probes",
        "What frozen features know of a task, whether it is fine-tuned or not. Probes are trained afresh for "
        "every snapshot. Zero-shot scores need a pretrained text tower and prompt templates.",
    ),
    "forgetting": Stage(
        "Forgetting",
        "Change of a probe's score since step 0 on a task that was not fine-tuned: negative is forgetting. "
        "For multi-label tasks, mean AUROC replaces accuracy and names end in `_auroc`.",
    ),
    "sequence": Stage(
        "Sequences of tasks",
        "Logged at the end of every task. R[i, j] is the accuracy on task j when task i has ended, both "
        "counted from 0; T is the number of tasks so far. `<scoring>` says how tasks are scored: "
        f"{', '.join(f'`{name}`' for name in SCORINGS)}. Where all tasks are multi-label, R holds mean AUROC "
        "and names end in `_auroc`.",
        interpolated=False,
    ),
    "drift": Stage(
        "Drift",
        "How far layers have moved since step 0, whether the brain reads them or not. Weights before the "
        "first block are `stem`, weights after the last `top`; `features` is what the head reads.",
    ),
    "collapse": Stage(
        "Collapse",
        "Whether fine-tuning broke the backbone. A collapsed snapshot gets no verdict. Features are those of "
        "the images of `drift`. Absent in runs tracked by earlier versions.",
        shown="collapsed",
    ),
    "selectors": Stage("Selectors", "Where voxels read: means over the voxels of a place.", True),
    "evidence": Stage(
        "Evidence per layer",
        "What leave-one-out ridge regressions say about layers "
        "([definitions.md](definitions.md#evidence-per-layer)).",
        True,
    ),
    "verdict": Stage(
        "Verdict",
        "What can be said about a region or the brain, by evidence per layer against degraded controls "
        "([definitions.md](definitions.md#the-verdict)). Absent for collapsed snapshots.",
        True,
        "kind",
    ),
    "rewiring": Stage(
        "Rewiring",
        "Change of what voxels read since step 0. Voxel measures are means over the voxels of a place that "
        "are predicted at either end (R² above 0.02); places with fewer than 5 have none. Signs are those of "
        "after − before. All but `n_predicted` have a noise floor: see the endings below. They describe, and "
        "have no p value of their own.",
        True,
        "wasserstein_excess",
    ),
    "alignment": Stage("Alignment", "How brain-like the order of layers is.", True),
    "brain": Stage(
        "Brain",
        "How well responses to held-out stimuli are predicted: means over the voxels of a place.",
        True,
    ),
}

_FORGETTING = "harness.measures.forgetting"
_REWIRING = "harness.measures.rewiring"
_DRIFT = "harness.measures.drift"
_DEPTH = "share of the depth"
_LOPEZ_PAZ = "Lopez-Paz & Ranzato 2017"


class _Score(NamedTuple):
    """A score of predictions."""

    title: str
    better: Better
    definition: str
    source: str = ""
    unit: str = ""
    high: float = 1.0


_SCORES = {
    "accuracy": _Score(
        "accuracy",
        "higher",
        "Share of images whose class is right; multi-label: share of right labels at a threshold of 0.5",
    ),
    "balanced_accuracy": _Score(
        "balanced accuracy",
        "higher",
        "Mean recall over classes; multi-label: mean of sensitivity and specificity at 0.5, over labels",
    ),
    "auroc": _Score(
        "AUROC",
        "higher",
        "Area under the ROC curve, each class against the others, mean over classes or labels",
    ),
    "ece": _Score(
        "calibration error",
        "lower",
        "Expected calibration error, 15 bins of equal width; multi-label: mean over labels",
        "Guo et al. 2017",
    ),
    "auroc_left_out": _Score(
        "labels left out of AUROC",
        "neither",
        "Labels that all test images have, or none: left out of AUROC and balanced accuracy",
        unit="labels",
        high=math.inf,
    ),
}


def name_auroc(measure: str) -> str:
    """Name of a measure made of AUROC: ``delta_lp`` → ``delta_lp_auroc``."""
    return "average_auroc" if measure == "average_accuracy" else f"{measure}_auroc"


def _training() -> Iterator[Metric]:
    loop = "harness.finetuning.loop.take_step"
    yield Metric(
        "train/loss",
        "training loss",
        "What is minimised: the sum of the method's terms, on the step's images.",
        loop,
        low=0.0,
        better="lower",
        headline="every place",
    )
    yield Metric(
        "train/lr",
        "learning rate",
        "Learning rate of the step.",
        "harness.finetuning.schedule.learning_rate",
        low=0.0,
    )
    yield Metric(
        "train/grad_norm",
        "gradient norm",
        "Norm of all gradients before clipping, where finite.",
        loop,
        low=0.0,
    )
    yield Metric(
        "train/<term>",
        "term of the loss",
        "One weighted term of the loss, for methods with several: `task_loss`, `penalty`, `head_penalty`, or "
        "a name of the method's own.",
        "harness.finetuning.methods.objective.Objective",
    )


def _scores() -> Iterator[Metric]:
    code = "harness.measures.label_scores.score_labels"
    for name, score in _SCORES.items():
        main = name in ("accuracy", "auroc")
        yield Metric(
            f"task/<task>/{name}",
            score.title,
            f"{score.definition}.",
            code,
            score.source,
            score.unit,
            0.0,
            score.high,
            score.better,
            headline="every place" if main else "never",
            above=f"{{place}}: {score.title}",
        )
    yield Metric(
        "probe/<task>/n_test",
        "number of test images",
        "Number of test images: accuracies on the task, those of the fine-tuned head too, are shares of it.",
        "harness.measures.rows.name_probes",
        unit="images",
        low=1.0,
    )
    for kind in PROBE_KINDS:
        for name, score in _SCORES.items():
            main = name in ("accuracy", "auroc") and kind.on_task
            yield Metric(
                f"probe/<task>/{kind.prefix}{name}",
                f"{score.title}, {kind.title}",
                f"{score.title[:1].upper()}{score.title[1:]} of {kind.definition}.",
                kind.code,
                kind.source,
                score.unit,
                0.0,
                score.high,
                score.better,
                headline="every place" if main else "never",
                above=f"{{place}}: {kind.title}" + (f", {score.title}" if name != "accuracy" else ""),
            )


def _forgetting(kind: ProbeKind) -> Iterator[Metric]:
    for score, name, more in (
        ("Accuracy", kind.delta, ""),
        ("AUROC", name_auroc(kind.delta), " (AUROC)"),
    ):
        change = Metric(
            f"forgetting/<task>/{name}",
            kind.symbol + more,
            f"{score} after − before, of {kind.definition}; negative is forgetting.",
            f"{_FORGETTING}.delta",
            kind.source,
            low=-1.0,
            high=1.0,
            better="higher",
            headline="every place" if kind.in_tables else "never",
            above=f"{kind.symbol}, {kind.title}",
            heading=f"{{place}}{more}",
            form="signed",
            compared=("end",) if kind.in_tables else (),
        )
        yield from expand(change, IMAGES)


def _sequence() -> Iterator[Metric]:
    def entry(
        measure: str,
        heading: str,
        definition: str,
        source: str,
        better: Better,
        low: float = 0.0,
        headline: bool = False,
    ) -> Iterator[Metric]:
        for of_auroc in (False, True):
            average = measure == "average_accuracy"
            yield Metric(
                f"sequence/<scoring>/{name_auroc(measure) if of_auroc else measure}",
                f"average {'AUROC' if of_auroc else 'accuracy'}" if average else heading,
                definition,
                f"{_FORGETTING}.{measure}",
                source,
                low=low,
                high=1.0,
                better=better,
                headline="every place" if headline else "never",
                above="sequence, {scoring}" + " (AUROC)" * of_auroc,
                heading="average AUROC" if average and of_auroc else heading,
                form="signed" if low < 0 else "number",
                compared=("end",),
            )

    yield from entry("average_accuracy", "ACC", "mean_j R[T−1, j].", _LOPEZ_PAZ, "higher", headline=True)
    yield from entry(
        "backward_transfer",
        "BWT",
        "mean_{j<T−1} (R[T−1, j] − R[j, j]); negative is forgetting.",
        _LOPEZ_PAZ,
        "higher",
        -1.0,
        headline=True,
    )
    yield from entry(
        "forgetting_chaudhry",
        "forgetting (Chaudhry)",
        "mean_{j<T−1} (max_{l<T−1} R[l, j] − R[T−1, j]); positive is forgetting, the last row is left out of "
        "the maximum.",
        "Chaudhry et al. 2018",
        "lower",
        -1.0,
    )
    yield from entry(
        "forgetting_max_all",
        "forgetting (max of all)",
        "mean_{j<T−1} (max_l R[l, j] − R[T−1, j]), the last row included.",
        "Mammoth",
        "lower",
        headline=True,
    )
    yield from entry(
        "relative_forgetting",
        "relative",
        "mean_{j<T−1} of forgetting (max of all) divided by max_l R[l, j].",
        "contilab",
        "lower",
    )
    yield from entry(
        "forward_transfer",
        "FWT",
        "mean_{j≥1} (R[j−1, j] − b[j]), b the scores at step 0.",
        _LOPEZ_PAZ,
        "higher",
        -1.0,
        headline=True,
    )
    yield from entry(
        "transfer",
        "transfer",
        "mean_{i≥1} mean_{j<i} R[j, i]: accuracy on tasks before they are trained.",
        "MTIL; ZSCL",
        "higher",
    )


def _drift() -> Iterator[Metric]:
    cka, weights = f"{_DRIFT}.linear_cka", f"{_DRIFT}.weight_distance"
    gradients = "harness.finetuning.gradient_norms.GradientNorms"
    yield Metric(
        "drift/<layer>/cka",
        "CKA",
        "Linear centred kernel alignment with step 0 on the same stimuli: 1 if only rotation, shift or scale "
        "has changed. Biased: high even for unrelated features of few images.",
        cka,
        "Kornblith et al. 2019",
        low=0.0,
        high=1.0,
    )
    yield Metric(
        "drift/<layer>/cka_unbiased",
        "CKA, unbiased",
        "The same with the unbiased HSIC estimator.",
        cka,
        "Song et al. 2012, eq. 5",
        low=-1.0,
        high=1.0,
    )
    yield Metric(
        "drift/<layer>/distance",
        "feature distance",
        "Mean squared distance Σ_d (f − f′)² over the variance at step 0: 0 unchanged, 2 unrelated.",
        f"{_DRIFT}.feature_drift",
        "ContinualEvaluation",
        low=0.0,
    )
    yield Metric(
        "drift/<layer>/weight_distance",
        "weight distance ‖θ − θ₀‖",
        "Euclidean distance of the layer's weights from step 0, adapters merged.",
        weights,
        low=0.0,
    )
    yield Metric(
        "drift/<layer>/weight_distance_relative",
        "weight distance ‖θ − θ₀‖ / ‖θ₀‖",
        "The same over the norm at step 0.",
        weights,
        low=0.0,
    )
    yield Metric(
        "drift/<layer>/grad_norm",
        "gradient norm",
        "Gradient norm before clipping, mean over the steps since the snapshot before.",
        gradients,
        low=0.0,
    )
    yield Metric(
        "drift/<layer>/grad_share",
        "gradient share",
        "The layer's share of the squared gradient norm, mean over the same steps.",
        gradients,
        low=0.0,
        high=1.0,
    )


def _collapse() -> Iterator[Metric]:
    code = "harness.measures.collapse"
    for name, title, definition in (
        ("collapsed", "collapsed", "1 if any of the reasons below holds, else 0."),
        (
            "probe_fell",
            "probe fell",
            "1 if the fresh linear probe has lost over a quarter of its lead over chance since step 0, on "
            "every task that is fine-tuned, and by more than chance (Fisher's exact test at .001); else 0.",
        ),
        (
            "degenerate",
            "features degenerate",
            "1 if less than 2 % of the spread of step 0 is left, or the effective rank is below 1.1; else 0.",
        ),
        ("not_finite", "not finite", "1 if weights or features are not finite, else 0."),
    ):
        yield Metric(
            f"collapse/all/{name}",
            title,
            definition,
            f"{code}.find_collapse",
            low=0.0,
            high=1.0,
            better="lower",
            headline="every place" if name == "collapsed" else "never",
        )
    yield Metric(
        "collapse/all/spread",
        "spread of features",
        "Share of the features' mean square that varies over images: 0 if all images look alike.",
        f"{code}.describe_features",
        low=0.0,
        high=1.0,
    )
    yield Metric(
        "collapse/all/effective_rank",
        "effective rank of features",
        "exp of the entropy of the principal components' shares of variance.",
        f"{code}.describe_features",
        "after Roy & Vetterli 2007",
        low=1.0,
    )


def _verdict() -> Iterator[Metric]:
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
        "0 unchanged, 1 loss of signal, 2 reweighted, 3 rewired; of the whole brain, the largest of its "
        "regions'.",
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


def _selectors() -> Iterator[Metric]:
    yield from expand(
        Metric(
            "selectors/<place>/expected_depth",
            "expected depth",
            "Σ_l ω_l l/(L−1) under the layer distribution ω: 0 first layer, 1 last.",
            f"{_REWIRING}.expected_depth",
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
            f"{_REWIRING}.confidence",
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
            headline="areas",
            over_subjects="interval",
        )
    )


def _rewiring() -> Iterator[Metric]:
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


def _alignment() -> Iterator[Metric]:
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


def _brain() -> Iterator[Metric]:
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


def list_metrics() -> Iterator[Metric]:
    """List all metrics, by stage; rows derived from a measure follow it."""
    yield from _training()
    yield from _scores()
    for kind in PROBE_KINDS:
        yield from _forgetting(kind)
    yield from _sequence()
    yield from _drift()
    yield from _collapse()
    yield from _selectors()
    yield from _verdict()
    yield from _rewiring()
    yield from _alignment()
    yield from _brain()
