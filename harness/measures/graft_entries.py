"""Entries of the catalogue: graft and repair. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from harness.measures.endings import IMAGES, expand
from harness.measures.metric import Metric

_GRAFT = "harness.measures.graft"
_OUTCOME = "harness.tracking.graft_summary.Outcome"
_CKA = "harness.measures.drift.linear_cka"


class _Predictor(NamedTuple):
    """What may foretell repair."""

    name: str
    title: str
    definition: str
    code: str
    low: float
    high: float
    source: str = ""


_PREDICTORS = (
    _Predictor(
        "map",
        "the map of rewiring",
        "How much the layer's stacked weight changed beyond all degraded controls to the same side: mean "
        "over regions, weighted by the sum of their voxels' noise ceilings.",
        f"{_GRAFT}.changed_shares",
        0.0,
        1.0,
    ),
    _Predictor(
        "weight_distance",
        "weight distance",
        "‖θ − θ₀‖ / ‖θ₀‖ of the layer's weights, adapters merged.",
        "harness.measures.drift.weight_distance",
        0.0,
        math.inf,
    ),
    _Predictor(
        "cka_lost",
        "1 − CKA",
        "1 minus the unbiased linear CKA of the layer's features with step 0.",
        _CKA,
        0.0,
        2.0,
        "Song et al. 2012, eq. 5",
    ),
    _Predictor(
        "cka_added",
        "1 − CKA added",
        "1 − CKA of the layer minus that of the layer before.",
        f"{_GRAFT}.added_drift",
        -2.0,
        2.0,
    ),
    _Predictor(
        "gradient_share",
        "gradient share",
        "The layer's share of the squared gradient norm, mean over all optimizer steps.",
        f"{_GRAFT}.average_gradients",
        0.0,
        1.0,
    ),
)

_ORDERS = {
    **{one.name: f"in the order of {one.title}, the largest first" for one in _PREDICTORS},
    "map_reversed": "in the reversed order of the map of rewiring",
    "measured": "in the order of their own repair, the largest first",
    "random": "in random orders, mean over the first five",
}


def list_graft() -> Iterator[Metric]:
    """List what grafts give back, what may foretell it, and how well it does."""
    yield from _list_outcomes()
    for one in _PREDICTORS:
        yield from _list_predictor(one)
    for order, words in _ORDERS.items():
        yield Metric(
            f"graft/all/area_{order}",
            f"area of repair, {order.replace('_', ' ')}",
            f"Area under repair over the share of layers put back, one after the other {words}. Weights "
            "outside the layers come last and do not count.",
            f"{_GRAFT}.curve_area",
            low=-1.0,
            high=1.0,
            form="signed",
        )


def _list_outcomes() -> Iterator[Metric]:
    repair = Metric(
        "graft/<layer>/repair",
        "repair",
        "Accuracy of a linear probe with the layer's pretrained weights put back, minus that of the "
        "fine-tuned network; mean over probes (AUROC for multi-label ones). `all` puts all layers back, "
        "which gives minus the mean Δ_LP.",
        _OUTCOME,
        low=-1.0,
        high=1.0,
        better="higher",
        form="signed",
    )
    yield from expand(repair, IMAGES)
    yield Metric(
        "graft/<layer>/repair_share",
        "share of repair",
        "Repair over what was forgotten, which is minus the mean Δ_LP. Absent unless the interval of the "
        "mean Δ_LP over test images lies below 0.",
        f"{_GRAFT}.repair_share",
        better="higher",
    )
    yield Metric(
        "graft/<layer>/task_lost",
        "accuracy lost on the task",
        "Accuracy (AUROC) of the fine-tuned head, minus that with the layer's pretrained weights; mean over "
        "the tasks of a sequence.",
        _OUTCOME,
        low=-1.0,
        high=1.0,
        better="lower",
        form="signed",
    )
    yield Metric(
        "graft/<layer>/r2_regained",
        "brain R² regained",
        "R² on held-out stimuli of one ridge regression on all layers, fitted at step 0 and frozen, with the "
        "layer's pretrained weights put back, minus that on the fine-tuned network; mean over the voxels "
        "with R² above 0.02 at step 0, and over subjects.",
        "harness.mappings.frozen_reading.FrozenReading",
        better="higher",
        form="signed",
    )


def _list_predictor(one: _Predictor) -> Iterator[Metric]:
    yield Metric(
        f"graft/<layer>/{one.name}",
        one.title.removeprefix("the "),
        one.definition,
        one.code,
        one.source,
        low=one.low,
        high=one.high,
    )
    yield Metric(
        f"graft/all/rho_{one.name}",
        f"ρ of repair and {one.title}",
        f"Spearman correlation over layers of the repair of a layer's graft with {one.title}. Absent with "
        "fewer than three layers, or where all repair alike.",
        f"{_GRAFT}.foretell",
        low=-1.0,
        high=1.0,
        headline="every place",
        form="signed",
    )
    yield Metric(
        f"graft/all/rho_given_depth_{one.name}",
        f"ρ of repair and {one.title}, given depth",
        "The same with the layer's place in the network held constant: ranks of both, less a line on depth. "
        "0 if depth explains all of either.",
        f"{_GRAFT}.foretell",
        low=-1.0,
        high=1.0,
        form="signed",
    )
    yield Metric(
        f"graft/all/p_{one.name}",
        f"p of repair and {one.title}",
        "Two-sided p of the correlation given depth, by permuted layers: all permutations of up to eight "
        "layers, else 10,000.",
        f"{_GRAFT}.foretell",
        low=0.0,
        high=1.0,
        headline="every place" if one.name == "map" else "never",
        form="p",
    )
