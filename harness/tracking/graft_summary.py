"""What follows from all grafts of a run: repair of every unit, curves of every order, and who foretold it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from harness.measures import (
    PREDICTORS,
    PROBE_KINDS,
    Change,
    change_of,
    curve_area,
    foretell,
    mean_change_interval,
    read_change,
    repair_share,
)
from harness.tracking.graft_records import Measured

N_RANDOM = 5
"""Random orders that are always measured; more may be asked for."""
LINEAR = "linear"
"""The probe that repair is measured with."""


class Outcome:
    """One graft compared with the fine-tuned network.

    Parameters
    ----------
    measured, tuned : Measured
        The graft, and the network without any.
    """

    def __init__(self, measured: Measured, tuned: Measured) -> None:
        self._now, self._tuned = measured, tuned
        self.changes = self._read(LINEAR, measured.probe)

    def _read(self, scoring: str, tasks: Mapping[str, Any]) -> dict[str, Change]:
        now, before = vars(self._now), vars(self._tuned)
        found = {task: read_change(now, before, task, scoring) for task in tasks}
        return {task: change for task, change in found.items() if change is not None}

    @property
    def repair(self) -> float:
        """Mean over probes of the linear probe's score, minus that of the fine-tuned network."""
        return float(np.mean([change_of(change) for change in self.changes.values()]))

    @property
    def task_lost(self) -> float:
        """Score of the fine-tuned heads that the graft loses, mean over tasks."""
        changes = self._read("head", self._now.task)
        return -float(np.mean([change_of(change) for change in changes.values()]))

    @property
    def r2_regained(self) -> float | None:
        """R² of the frozen reading, minus that of the fine-tuned network, mean over subjects."""
        found = [self._now.r2[subject] - self._tuned.r2[subject] for subject in self._now.r2]
        return float(np.mean(found)) if found else None

    def describe(self, seed: int) -> dict[str, Any]:
        """All numbers, with intervals over test images; of every probe and kind of probe apart too."""
        ends = mean_change_interval(list(self.changes.values()), seed)
        probes: dict[str, dict[str, Any]] = {}
        for kind in PROBE_KINDS:
            for task, change in self._read(kind.name, self._now.probe).items():
                low, high = mean_change_interval([change], seed) or (None, None)
                probes.setdefault(task, {})[kind.name] = {
                    "repair": change_of(change),
                    "low": low,
                    "high": high,
                }
        low, high = ends or (None, None)
        return {
            "repair": self.repair,
            "repair_low": low,
            "repair_high": high,
            "task_lost": self.task_lost,
            "r2_regained": self.r2_regained,
            "probes": probes,
        }


def summarise(
    read: Callable[[Sequence[str]], Measured],
    units: Sequence[str],
    compared: Sequence[str],
    predictors: Mapping[str, Mapping[str, float]],
    orders: Mapping[str, Sequence[str]],
    seed: int,
    adapters: Sequence[str] = (),
) -> dict[str, Any]:
    """Describe all grafts of a run.

    Parameters
    ----------
    read : function of units to Measured
        Reads a graft; of no unit, the fine-tuned network.
    units : sequence of str
        All units that fine-tuning changed.
    compared : sequence of str
        Those over which predictors are correlated with repair.
    predictors : mapping of name to mapping of unit to float
    orders : mapping of name to units in that order
    seed : int
        Of resampled test images and permuted units.
    adapters : sequence of str
        Adapters that were grafted alone.

    Returns
    -------
    dict
        For a JSON file: ``tuned`` (scores of the fine-tuned network); ``all``, ``units`` and ``adapters``
        (repair, share, accuracy lost, R² regained; of units, the predictors); ``orders`` (the same curves
        over the number of units put back, and areas); ``foretold`` and ``foretold_r2`` (a `Foretold` for each
        predictor, of repair and of R² regained).
    """
    tuned = read(())
    whole = Outcome(read(units), tuned).describe(seed)
    forgotten, high = -whole["repair"], -(whole["repair_low"] or 0.0)
    described = {}
    for unit in (*units, *adapters):
        one = Outcome(read((unit,)), tuned).describe(seed)
        one["share"] = repair_share(one["repair"], forgotten, high)
        one["predictors"] = {name: values[unit] for name, values in predictors.items() if unit in values}
        described[unit] = one
    outcomes = {
        "foretold": [described[unit]["repair"] for unit in compared],
        "foretold_r2": [described[unit]["r2_regained"] for unit in compared],
    }
    return {
        "tuned": {"probe": tuned.probe, "task": tuned.task, "r2": tuned.r2},
        "forgotten": {"delta": forgotten, "low": -(whole["repair_high"] or 0.0), "high": high},
        "compared": list(compared),
        "all": {**whole, "share": repair_share(whole["repair"], forgotten, high)},
        "units": {unit: described[unit] for unit in units},
        "adapters": {adapter: described[adapter] for adapter in adapters},
        "orders": {
            name: _describe_order(read, order, tuned, len(compared)) for name, order in orders.items()
        },
        **{name: _foretell_all(predictors, compared, outcome, seed) for name, outcome in outcomes.items()},
    }


def _foretell_all(
    predictors: Mapping[str, Mapping[str, float]],
    compared: Sequence[str],
    outcome: Sequence[float | None],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Correlate every predictor of all units with an outcome; those without a correlation are left out."""
    known = [value for value in outcome if value is not None]
    if len(known) < len(compared):
        return {}
    tests = {
        name: foretell([values[unit] for unit in compared], known, seed)
        for name, values in predictors.items()
        if all(unit in values for unit in compared)
    }
    return {name: asdict(found) for name, found in tests.items() if found is not None}


def _describe_order(
    read: Callable[[Sequence[str]], Measured], order: Sequence[str], tuned: Measured, n_compared: int
) -> dict[str, Any]:
    steps = [Outcome(read(order[:place]), tuned) for place in range(len(order) + 1)]
    repair = [step.repair for step in steps]
    return {
        "units": list(order),
        "repair": repair,
        "probes": {task: [change_of(step.changes[task]) for step in steps] for task in steps[0].changes},
        "task_lost": [step.task_lost for step in steps],
        "r2_regained": [step.r2_regained for step in steps],
        "area": curve_area(repair[: n_compared + 1]),
    }


def name_rows(summary: Mapping[str, Any]) -> dict[str, float]:
    """Name the rows of a summary, ``graft/<layer>/…`` and ``graft/all/…``; what is undefined has none."""
    values: dict[str, float | None] = {}
    for unit, one in {"all": summary["all"], **summary["units"], **summary["adapters"]}.items():
        start = f"graft/{unit}"
        values |= {f"{start}/{name}": one[name] for name in ("repair", "repair_low", "repair_high")}
        values |= {
            f"{start}/repair_share": one["share"],
            f"{start}/task_lost": one["task_lost"],
            f"{start}/r2_regained": one["r2_regained"],
        }
        values |= {f"{start}/{name}": value for name, value in one.get("predictors", {}).items()}
    for name in PREDICTORS:
        if name in summary["foretold"]:
            found = summary["foretold"][name]
            measures = ("rho", "rho_given_depth", "p")
            values |= {f"graft/all/{measure}_{name}": found[measure] for measure in measures}
    areas = {name: order["area"] for name, order in summary["orders"].items()}
    always = [areas.pop(f"random_{number}", None) for number in range(1, N_RANDOM + 1)]
    values |= {f"graft/all/area_{name}": area for name, area in areas.items() if "random" not in name}
    known = [area for area in always if area is not None]
    if len(known) == N_RANDOM:
        values["graft/all/area_random"] = float(np.mean(known))
    return {name: value for name, value in values.items() if value is not None}
