"""The entries of the catalogue of metrics, stage by stage. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from harness.measures.endings import (
    FLOOR,
    SPREAD,
    WEIGHTED,
    expand,
)
from harness.measures.metric import (
    At,
    Better,
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
    "selectors": Stage("Selectors", "Where voxels read: means over the voxels of a place.", True),
    "rewiring": Stage(
        "Rewiring",
        "Change of what voxels read since step 0. Voxel measures are means over the voxels of a place. Signs "
        "are those of after − before. All have a noise floor: see the endings below.",
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
        yield Metric(
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
            heading="raw",
            form="signed" if tail == "two-sided" else "number",
            compared=compared,
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
            "_p": "whole brain",
            "_p_fdr": "every place",
            "_excess_subjects_p": "whole brain",
            "_excess_subjects_p_fdr": "every place",
        },
        compared=dict.fromkeys(("_null", "_excess", "_p", "_excess_subjects_p"), ("end",)),
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
        entry("confidence_change", "confidence change", "Change of confidence.", "two-sided", -1.0),
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


def _alignment() -> Iterator[Metric]:
    code = "harness.measures.alignment.hierarchy_alignment"
    hierarchy = Metric(
        "alignment/all/hierarchy",
        "hierarchy alignment",
        "Spearman correlation of a voxel's ROI rank and its expected depth: 1 if depth rises with rank.",
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

    def line(name: str, title: str, definition: str, better: Better) -> Iterator[Metric]:
        place = f"alignment/all/{name}"
        yield from expand(
            Metric(place, title, definition, code, unit=_DEPTH, better=better, over_subjects="interval")
        )

    yield from line(
        "slope", "slope", "Least-squares slope of expected depth on ROI rank scaled to [0, 1].", "higher"
    )
    yield from line("intercept_low", "b0", "The fitted line at the lowest rank.", "lower")
    yield from line("intercept_high", "b1", "The fitted line at the highest rank: b0 + slope.", "higher")


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
            "Mean R² over mean noise ceiling; absent without a ceiling.",
            "harness.measures.rows.name_mapping",
            better="higher",
            over_subjects="interval",
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
    yield from _selectors()
    yield from _rewiring()
    yield from _alignment()
    yield from _brain()
