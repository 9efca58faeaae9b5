"""Tables of means over runs, with intervals and in words, out of curves of single runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

import numpy as np
import pandas as pd

from harness.measures import name_verdict
from harness.storage import unknown_name

APART = ("method", "brain", "shift")
"""Columns whose values are averaged only on request: their means would say nothing about either."""
COUNTED = ("run", "study", "backbone", "task", "method", "brain", "seed", "place")
NOT_AVERAGED = r"_(?:low|high|p|p_fdr)$"
STATISTICS = ("mean", "std", "n", "counts", "low", "high", "interval", "p", "n_test")


def mean_curves(curves: pd.DataFrame, by: Sequence[str], over: Sequence[str] = ()) -> pd.DataFrame:
    """Mean, standard deviation, n and what it counts, interval and p, by group and step; as for `query`.

    Without ``roi`` in `by`, the whole brain's values (``roi == "all"``) are used: ROIs overlap and differ in
    size, so a mean over them means nothing. The same holds for ``subject``, whose ``"all"`` is the mean over
    subjects. Measures are never mixed; methods and brains only if `over` names them.

    Parameters
    ----------
    curves : DataFrame
        As `metric_curves` returns it, perhaps with columns n_test and describes: whether a row only describes
        another measure's.
    by : sequence of str
        Columns to keep apart.
    over : sequence of str
        Of ``method``, ``brain`` and ``shift``: those to average over.
    """
    known = [column for column in curves.columns if column not in ("step", "value", "n_test", "describes")]
    check_columns(by, known)
    for column in ("roi", "subject"):
        if column in known and column not in by:
            curves = curves[curves[column] == "all"]
    apart = [
        column
        for column in APART
        if column in known and column not in (*by, *over) and curves[column].nunique() > 1
    ]
    keys = list(dict.fromkeys([*by, *apart, "measure", "step"]))
    grouped = curves.groupby(keys, as_index=False, observed=True)
    table = grouped["value"].agg(["mean", "std", "count"]).rename(columns={"count": "n"})
    counted = [column for column in COUNTED if column in known and column not in keys]
    different = grouped[counted].nunique() if counted else table[[]]
    different = different[counted]
    say = cache(partial(_say_counts, tuple(counted)))
    rows = zip(*(different[column] for column in counted), strict=True)
    table["counts"] = [say(*row) for row in rows] if counted else say()
    if "n_test" in curves:
        table["n_test"] = grouped["n_test"].min()["n_test"]
    if "describes" in curves:
        table["describes"] = grouped["describes"].all()["describes"]
    table = _as_text(table)
    table = _add_intervals(table, [key for key in keys if key not in ("measure", "step")], different)
    single = ~table["measure"].str.contains(NOT_AVERAGED, regex=True)
    table = table[single | (table["n"] == 1)]
    if "describes" in table:
        table = table[~table["describes"]].drop(columns="describes")
    order = [*keys, *(column for column in STATISTICS if column in table)]
    return table[order].reset_index(drop=True)


def _add_intervals(table: pd.DataFrame, keys: Sequence[str], different: pd.DataFrame) -> pd.DataFrame:
    """Add the columns low, high, interval and p; `different` counts what differs in each group."""
    table = table.reset_index(drop=True)
    table["low"] = table["high"] = table["p"] = np.nan
    table["interval"] = ""
    single, moments = table["n"] == 1, [*keys, "step"]
    found = {measure: rows.set_index(moments)["mean"] for measure, rows in table[single].groupby("measure")}
    for measure in list(found):
        rows = single & (table["measure"] == measure)
        index = pd.MultiIndex.from_frame(table.loc[rows, moments])
        for name, (column, over) in describing_measures(measure).items():
            if name not in found:
                continue
            values = found[name].reindex(index if len(moments) > 1 else index.get_level_values(0)).to_numpy()
            known = rows.to_numpy().nonzero()[0][~np.isnan(values)]
            table.loc[known, column] = values[~np.isnan(values)]
            if over:
                table.loc[known, "interval"] = over
    single = single.to_numpy()
    others = [column for column in different.columns if column not in ("run", "seed")]
    only_seeds = (different[others] <= 1).all(axis=1).to_numpy() & ~single
    if "run" in different:
        only_seeds &= different["run"].to_numpy() == table["n"].to_numpy()
    only_seeds &= (table["measure"] != "kind").to_numpy()
    if only_seeds.any():
        from scipy.special import stdtrit

        n = table.loc[only_seeds, "n"]
        half = stdtrit(n - 1, 0.975) * table.loc[only_seeds, "std"] / np.sqrt(n)
        table.loc[only_seeds, "low"] = table.loc[only_seeds, "mean"] - half
        table.loc[only_seeds, "high"] = table.loc[only_seeds, "mean"] + half
        table.loc[only_seeds, "interval"] = "seeds"
    return table


def _say_counts(counted: Sequence[str], *numbers: int) -> str:
    """Say what a mean is over: the number of runs, and of whatever differs among them."""
    different = dict(zip(counted, numbers, strict=True))
    runs = different.get("run", 1)
    more = [
        f"{n} {column}s" for column, n in different.items() if n > 1 and column not in ("run", "objective")
    ]
    text = f"{runs} run{'s' * (runs != 1)}"
    # "3 studys" is no word
    return (f"{text} ({', '.join(more)})" if more else text).replace("studys", "studies")


def add_words(table: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Add the verdicts behind the means of codes, in words, the strongest first."""
    keys = [column for column in table.columns if column not in STATISTICS]
    chosen = curves[curves["measure"] == "kind"]
    for column in ("roi", "subject"):
        if column not in keys:
            chosen = chosen[chosen[column] == "all"]

    def write(codes: pd.Series) -> str:
        counts = codes.round().astype(int).value_counts().sort_index(ascending=False)
        names = {name_verdict(float(code)): n for code, n in counts.items()}
        return next(iter(names)) if len(names) == 1 else ", ".join(f"{k} {n}" for k, n in names.items())

    if chosen.empty:
        return table
    words = _as_text(chosen.groupby(keys, as_index=False, observed=True)["value"].agg(verdict=write))
    return table.merge(words, how="left", on=keys)


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Write out categories, which are fast to group by."""
    return table.astype({column: "str" for column in table.select_dtypes("category")})


def describing_measures(measure: str) -> dict[str, tuple[str, str]]:
    """Return the measures that describe a measure's values → the column, and what an interval is over."""
    if measure == "kind":
        return {"p": ("p", "")}
    over = "refits" if measure.endswith("_excess") else "test images" if measure.startswith("delta") else ""
    found = {f"{measure}_p": ("p", "")}
    if over:
        found |= {f"{measure}_low": ("low", over), f"{measure}_high": ("high", over)}
    # over subjects comes last, and wins
    found[f"{measure}_subjects_p"] = ("p", "")
    return found | {
        f"{measure}_subjects_low": ("low", "subjects"),
        f"{measure}_subjects_high": ("high", "subjects"),
    }


def check_columns(by: Sequence[str], known: Sequence[str]) -> None:
    """Raise an `InputError` that names the first column which is none of the `known`."""
    for column in by:
        if column not in known:
            raise unknown_name("column", column, known)
