"""Entries of metrics of the network: training, tasks, probes, forgetting, drift, collapse."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from harness.measures.endings import (
    IMAGES,
    expand,
)
from harness.measures.metric import (
    Better,
    Metric,
)
from harness.measures.probes.kinds import (
    PROBE_KINDS,
    ProbeKind,
)

JOINT = "joint"
"""Scoring of class-incremental sequences: the heads of all stages so far answer together."""

SCORINGS = {"head": "head", JOINT: "joint head", **{kind.name: kind.title for kind in PROBE_KINDS}}
"""Ways to score a task, with titles: its own head, all heads so far together, and every kind of probe."""

_FORGETTING = "harness.measures.forgetting"
_DRIFT = "harness.measures.drift"


class _Score(NamedTuple):
    """A score of predictions."""

    title: str
    better: Better
    definition: str
    source: str = ""
    unit: str = ""
    high: float = 1.0


SCORE_TEXTS = {
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
"""What every score of predictions is."""


def name_auroc(measure: str) -> str:
    """Name of a measure made of AUROC: ``delta_lp`` → ``delta_lp_auroc``."""
    return "average_auroc" if measure == "average_accuracy" else f"{measure}_auroc"


def list_training() -> Iterator[Metric]:
    """List what is logged at every optimizer step."""
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
        headline="every place",
    )
    yield Metric(
        "train/grad_norm",
        "gradient norm",
        "Norm of all gradients before clipping, where finite.",
        loop,
        low=0.0,
        headline="every place",
    )
    yield Metric(
        "train/<term>",
        "term of the loss",
        "One weighted term of the loss, for methods with several: `task_loss`, `penalty` (of `brain_anchor`: "
        "λ times the change of predicted responses), `head_penalty`, or a name of the method's own.",
        "harness.finetuning.methods.objective.Objective",
        headline="every place",
    )


def list_scores() -> Iterator[Metric]:
    """List scores of the fine-tuned head and of probes."""
    code = "harness.measures.label_scores.score_labels"
    for name, score in SCORE_TEXTS.items():
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
        for name, score in SCORE_TEXTS.items():
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


def list_forgetting(kind: ProbeKind) -> Iterator[Metric]:
    """List changes of one kind of probe."""
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


def list_drift() -> Iterator[Metric]:
    """List how far layers have moved."""
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


def list_collapse() -> Iterator[Metric]:
    """List whether fine-tuning broke the backbone."""
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
