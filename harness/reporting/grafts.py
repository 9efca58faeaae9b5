"""Grafts in words and tables: what every layer repairs, and who foretold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.measures import PREDICTORS
from harness.reporting.columns import ABSENT
from harness.reporting.run_results import RunResult
from harness.tracking import read_summary

ORDERS = {
    "measured": "by measured repair",
    "map": "by the map of rewiring",
    "map_reversed": "by the map, reversed",
    **{name: f"by {title}" for name, title in PREDICTORS.items() if name != "map"},
}
"""Orders in which layers are put back, in words; random ones are told apart by number."""

UNIT_HEADINGS = ("pretrained weights in", "repair", "of forgotten", "lost on the task", "brain R² regained")
FORETOLD_HEADINGS = (
    *("predictor", "ρ with repair", "given depth", "p", "smallest p", "first is first"),
    *("area of its order", "ρ with R² regained, given depth", "p of R²"),
)


@dataclass(frozen=True)
class Grafted:
    """A run whose layers were grafted.

    Attributes
    ----------
    title : str
    colour : str
    summary : dict
        Of `harness.tracking.read_summary`.
    """

    title: str
    colour: str
    summary: Mapping[str, Any]

    @property
    def random(self) -> list[Mapping[str, Any]]:
        """Curves of random orders."""
        return [order for name, order in self.summary["orders"].items() if name.startswith("random_")]


def read_grafted(runs: Sequence[tuple[str, str, RunResult]]) -> list[Grafted]:
    """Read the grafts of those of these runs that have any; each run with its title and colour."""
    found = [(title, colour, read_summary(run.folder)) for title, colour, run in runs]
    return [Grafted(title, colour, summary) for title, colour, summary in found if summary is not None]


def write_verdict(summary: Mapping[str, Any]) -> str:
    """Say in a sentence or two what the grafts of a run show."""
    forgotten = summary["forgotten"]
    text = f"Mean Δ_LP over probes {_signed(forgotten['delta'])} {_interval(forgotten)}"
    if forgotten["high"] >= 0:
        return f"{text}: nothing significant was forgotten, so there is little to repair."
    units = {unit: one["repair"] for unit, one in summary["units"].items()}
    best = max(units, key=lambda unit: units[unit])
    one = summary["units"][best]
    ends = {"low": one["repair_low"], "high": one["repair_high"]}
    text += f". {best} repairs most, {_signed(units[best])} {_interval(ends)}"
    if one["share"] is not None:
        text += f", {one['share']:.0%} of what was forgotten"
    compared = [summary["units"][unit] for unit in summary["compared"]]
    n_alone = sum((unit["repair_low"] or 0.0) > 0 for unit in compared)
    text += (
        f". Of {len(compared)} layers, {n_alone or 'none'} repair{'s' * (n_alone == 1)} significantly alone"
    )
    found = summary["foretold"].get("map")
    if found is None:
        return f"{text}. The map of rewiring gives no order."
    rho, p = found["rho_given_depth"], found["p"]
    verb = "foretells repair" if rho > 0 and p <= 0.05 else "does not foretell repair"
    return f"{text}. The map of rewiring {verb} (given depth, ρ {_signed(rho)}, p {_p(p)})."


def list_units(summary: Mapping[str, Any]) -> list[list[str]]:
    """Cells of the table of units: `UNIT_HEADINGS`, the repair on every probe, then the predictors."""
    rows = []
    probes, predictors = name_probes(summary), name_predictors(summary)
    whole = {"all of them": summary["all"]}
    for unit, one in {**summary["units"], **whole, **summary["adapters"]}.items():
        ends = {"low": one["repair_low"], "high": one["repair_high"]}
        row = [unit, f"{_signed(one['repair'])} {_interval(ends)}"]
        row.append(ABSENT if one["share"] is None else f"{one['share']:.0%}".replace("-", "−"))
        row += [_signed(one["task_lost"]), _signed(one["r2_regained"])]
        row += [_signed(one["probes"][probe]["linear"]["repair"]) for probe in probes]
        row += [_number(one.get("predictors", {}).get(name)) for name in predictors]
        rows.append(row)
    return rows


def name_probes(summary: Mapping[str, Any]) -> list[str]:
    """Probes that repair is measured on."""
    return [probe for probe, kinds in summary["all"]["probes"].items() if "linear" in kinds]


def name_predictors(summary: Mapping[str, Any]) -> list[str]:
    """Predictors that a run has for any unit."""
    return [
        name for name in PREDICTORS if any(name in one["predictors"] for one in summary["units"].values())
    ]


def list_foretold(summary: Mapping[str, Any]) -> list[list[str]]:
    """Cells of the table of predictors, `FORETOLD_HEADINGS`; then areas of the other orders."""
    rows = []
    orders = dict(summary["orders"])
    for name in name_predictors(summary):
        found, order = summary["foretold"].get(name), orders.pop(name, None)
        of_r2 = summary["foretold_r2"].get(name)
        row = [PREDICTORS[name]]
        if found is None:
            row += [ABSENT] * 5
        else:
            first = "yes" if found["first"] else "no"
            row += [_signed(found["rho"]), _signed(found["rho_given_depth"])]
            row += [_p(found["p"]), _p(found["smallest_p"]), first]
        row.append(ABSENT if order is None else _signed(order["area"]))
        rows.append(
            [*row, *([ABSENT] * 2 if of_r2 is None else [_signed(of_r2["rho_given_depth"]), _p(of_r2["p"])])]
        )
    for name in ("map_reversed", "measured"):
        if name in orders:
            area = _signed(orders[name]["area"])
            rows.append([f"order {ORDERS[name]}", *[ABSENT] * 5, area, *[ABSENT] * 2])
    areas = [order["area"] for name, order in orders.items() if name.startswith("random_")]
    if areas:
        ends = f"{_signed(min(areas))} to {_signed(max(areas))}"
        rows.append([f"{len(areas)} random orders", *[ABSENT] * 5, ends, *[ABSENT] * 2])
    return rows


def write_tables(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Describe the tables of a run, with title, headings and rows."""
    probes = [f"repair, {probe}" for probe in name_probes(summary)]
    predictors = [PREDICTORS[name] for name in name_predictors(summary)]
    return [
        {
            "title": "Who foretold repair",
            "headings": list(FORETOLD_HEADINGS),
            "rows": list_foretold(summary),
        },
        {
            "title": "What every layer repairs",
            "headings": [*UNIT_HEADINGS, *probes, *predictors],
            "rows": list_units(summary),
        },
    ]


def format_grafts(summary: Mapping[str, Any]) -> str:
    """Format the grafts of a run for a terminal."""
    foretold, units = write_tables(summary)
    parts = [write_verdict(summary)]
    for table, n_columns in ((units, len(UNIT_HEADINGS)), (foretold, len(FORETOLD_HEADINGS))):
        rows = [row[:n_columns] for row in table["rows"]]
        frame = pd.DataFrame(rows, columns=table["headings"][:n_columns])
        parts.append(frame.to_string(index=False, line_width=120))
    return "\n\n".join(parts)


def _signed(value: float | None) -> str:
    return ABSENT if value is None else f"{value:+.3f}".replace("-", "−")


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3g}".replace("-", "−")


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"


def _interval(ends: Mapping[str, float | None]) -> str:
    return f"[{_signed(ends['low'])}, {_signed(ends['high'])}]"
