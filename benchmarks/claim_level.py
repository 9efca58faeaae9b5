"""Level and power of the test of "brain-like networks forget less" (`palimpsest claim`).

    OMP_NUM_THREADS=1 python benchmarks/claim_level.py --output benchmarks/results/claim_level

*Level.* H says nothing of F: both are normal, and independent within size classes. In the confounded rows,
every size class is 2 standard deviations above the one before on H and on F, so that H and F are related over
all backbones but not within classes. Shown are the shares of p ≤ .05 of the permutation within classes, of
Spearman's own p, and of the mixed model (two tasks, with log parameters and probe accuracy as controls). Few
backbones allow few permutations: "attainable" is the largest level up to .05 that an exact test can have.

*Power.* Share of samples of n backbones in which the test finds a true rank correlation.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, write_figures
from matplotlib.figure import Figure
from scipy.stats import binomtest, rankdata, t

from harness.measures.mixed_model import fit_mixed_model
from harness.measures.rank_tests import (
    MOST_EXACT,
    count_permutations,
    detectable_rho,
    power_of_rank_test,
    rank_test,
)
from harness.plot.style import FAINT, figure_style, save_png

ALPHA = 0.05
N_PERMUTATIONS, N_POWER = 999, 499  # the level is exact with any number
STEP = 2.0  # of H and F from one confounded size class to the next, sd
TASKS = 2
DESIGNS = {
    "one class": (1.0,),
    "two classes": (0.5, 0.5),
    "three unequal classes": (0.5, 0.3, 0.2),
}
BACKBONES = (6, 8, 14, 16, 29)
MIXED_AT = (("one class", 14), ("two classes", 14))
CORRELATIONS = (0.3, 0.5, 0.7, 0.9)
POWER_AT = (6, 8, 10, 14, 16, 20, 29, 44)
REFERENCE = {14: 0.7, 29: 0.5}  # backbones: correlation that they show with 80 % power


def sizes(n_backbones: int, shares: tuple[float, ...]) -> list[int]:
    """Size class of each backbone, 0 the smallest."""
    ends = np.round(np.cumsum(shares) * n_backbones).astype(int)
    return np.repeat(np.arange(len(shares)), np.diff([0, *ends])).tolist()


def share(hits: int, n_replicates: int) -> dict[str, Any]:
    """Share of hits with its exact 95 % interval."""
    interval = binomtest(hits, n_replicates).proportion_ci()
    return {
        "share": hits / n_replicates,
        "low": interval.low,
        "high": interval.high,
        "replicates": n_replicates,
    }


def draw_samples(
    n_backbones: int, design: str, n_replicates: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    """Size class of each backbone, and H and F of samples in which only the class relates the two."""
    place = np.array(sizes(n_backbones, DESIGNS[design]))
    rng = np.random.default_rng((n_backbones, len(DESIGNS[design])))
    score, forgetting = STEP * place + rng.standard_normal((2, n_replicates, n_backbones))
    return place, score, forgetting, rng


def measure_level(n_backbones: int, design: str, n_replicates: int) -> dict[str, Any]:
    """Count false positives of the permutation within classes and of Spearman's own p."""
    place, score, forgetting, _ = draw_samples(n_backbones, design, n_replicates)
    classes = [str(index) for index in place]
    first, second = (rankdata(values, axis=1) - (n_backbones + 1) / 2 for values in (score, forgetting))
    rho = (first * second).sum(axis=1) / (first[0] ** 2).sum()
    n_orders = count_permutations(classes)
    if n_orders > MOST_EXACT:
        hits = power_of_rank_test(0.0, classes, ALPHA, n_replicates, N_PERMUTATIONS, n_backbones, STEP)
        permuted = share(round(hits * n_replicates), n_replicates)
    elif len(set(classes)) == 1:
        # without ties, all samples have the same permutations
        critical = rank_test(score[0], forgetting[0], classes, ALPHA).critical
        permuted = share(int((np.abs(rho) >= (critical or np.inf) - 1e-9).sum()), n_replicates)
    else:
        tests = (rank_test(*pair, classes, ALPHA) for pair in zip(score, forgetting, strict=True))
        permuted = share(sum(test.p <= ALPHA for test in tests), n_replicates)
    return {
        "backbones": n_backbones,
        "design": design,
        "permutation": permuted,
        "spearman": share(int((spearman_p(rho, n_backbones) <= ALPHA).sum()), n_replicates),
        "exact": n_orders <= MOST_EXACT,
        "attainable": attainable_level(n_backbones) if n_orders <= MOST_EXACT and not place.any() else None,
    }


def measure_mixed(n_backbones: int, design: str, n_replicates: int) -> dict[str, Any]:
    """Count false positives of the mixed model."""
    place, score, forgetting, rng = draw_samples(n_backbones, design, n_replicates)
    hits = sum(fit(*pair, place, rng) for pair in zip(score, forgetting, strict=True))
    return {"backbones": n_backbones, "design": design, **share(hits, n_replicates)}


def fit(score: np.ndarray, forgetting: np.ndarray, place: np.ndarray, rng: np.random.Generator) -> bool:
    """Whether the mixed model finds an effect: two tasks, log parameters rise with the size class."""
    n_backbones = len(score)
    parameters = place + 0.1 * rng.standard_normal(n_backbones)
    probe = score + 2 * rng.standard_normal(n_backbones)
    by_task = forgetting[:, None] + rng.standard_normal((n_backbones, TASKS))
    fitted = fit_mixed_model(
        by_task.T.ravel(),
        np.tile(score, TASKS),
        {"log parameters": np.tile(parameters, TASKS), "probe accuracy": np.tile(probe, TASKS)},
        [str(task) for task in range(TASKS) for _ in range(n_backbones)],
        [str(index) for index in range(n_backbones)] * TASKS,
    )
    return fitted is not None and fitted.p <= ALPHA


def spearman_p(rho: np.ndarray, n_backbones: int) -> np.ndarray:
    """Two-sided p of Spearman correlations by the t distribution, as of scipy.stats.spearmanr."""
    freedom = n_backbones - 2
    return 2 * t.sf(np.abs(rho) * np.sqrt(freedom / np.maximum(1 - rho**2, 1e-12)), freedom)


def attainable_level(n_backbones: int) -> float:
    """Largest level up to ALPHA of the exact test of n backbones of one class, without ties."""
    first = np.arange(n_backbones) - (n_backbones - 1) / 2
    sums = np.abs(np.array([np.dot(order, first) for order in itertools.permutations(first)]).round(6))
    _, counts = np.unique(sums, return_counts=True)
    p = counts[::-1].cumsum()[::-1] / len(sums)
    return float(p[p <= ALPHA].max())


def measure_power(n_replicates: int) -> Iterator[dict[str, Any]]:
    """Power by number of backbones and true correlation, and what 80 % of samples show."""
    for n_backbones in POWER_AT:
        classes = ["one"] * n_backbones
        found = {
            str(rho): power_of_rank_test(rho, classes, ALPHA, n_replicates, N_POWER) for rho in CORRELATIONS
        }
        places = np.arange(n_backbones, dtype=float)
        critical = rank_test(places, places, classes, ALPHA, 40_000).critical
        yield {
            "backbones": n_backbones,
            "power": found,
            "critical": critical,
            "detectable": detectable_rho(classes, ALPHA),
        }


def draw(figures: dict[str, Any]) -> Figure:
    """Draw level and power side by side."""
    with figure_style():
        figure = Figure(figsize=(10.8, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.axhspan(0.04, 0.06, color="#e6e6e6", zorder=0)
        left.axhline(ALPHA, color=FAINT, linewidth=0.8)
        for shift, design in enumerate(DESIGNS):
            rows = [row for row in figures["level"] if row["design"] == design]
            for test, marker, alpha in (("permutation", "o", 1.0), ("spearman", "x", 0.55)):
                if test == "spearman" and len(DESIGNS[design]) == 1:
                    continue
                shares = np.array([row[test]["share"] for row in rows])
                ends = np.array([[row[test]["low"], row[test]["high"]] for row in rows]).T
                name = "permuted within classes" if test == "permutation" else "Spearman’s p"
                left.errorbar(
                    np.arange(len(rows)) + 0.16 * (shift - 1), shares, abs(ends - shares),
                    fmt=marker, color=f"C{shift}", alpha=alpha, markersize=4.5, linewidth=1,
                    label=f"{design}, {name}",
                )  # fmt: skip
        left.set_yscale("log")
        left.set_ylim(0.015, 1.3)
        left.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5, 1], [".02", ".05", ".1", ".2", ".5", "1"])
        left.set_yticks([], minor=True)
        left.set_xticks(range(len(BACKBONES)), [str(number) for number in BACKBONES])
        left.set(xlabel="backbones", ylabel="p ≤ .05", title="Without any effect")
        left.legend(fontsize=7.5, loc="upper left", bbox_to_anchor=(0, -0.16), ncol=2)
        numbers = [row["backbones"] for row in figures["power"]]
        for place, rho in enumerate(CORRELATIONS):
            right.plot(
                numbers, [row["power"][str(rho)] for row in figures["power"]], marker="o",
                color=f"C{place}", label=f"ρ = {rho:g}",
            )  # fmt: skip
        right.axhline(0.8, color=FAINT, linewidth=0.8)
        for number, rho in REFERENCE.items():
            right.plot(number, 0.8, marker="s", markersize=9, fillstyle="none", color="#222222")
            right.annotate(f"{number} show {rho:g}", (number, 0.8), (6, -14), textcoords="offset points")
        right.set(xlabel="backbones", ylabel="power", title="With a true rank correlation ρ", ylim=(0, 1.03))
        right.legend(loc="lower right")
    return figure


def main() -> None:
    """Measure, and write figures and a picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicates", type=int, default=4_000)
    parser.add_argument("--mixed", type=int, default=300, help="replicates of the mixed model")
    parser.add_argument("--output", type=Path, required=True, help="path without suffix")
    arguments = parser.parse_args()
    start = time.process_time()
    level = []
    for design, n_backbones in itertools.product(DESIGNS, BACKBONES):
        row = measure_level(n_backbones, design, arguments.replicates)
        level.append(row)
        shares = f"{row['permutation']['share']:.4f}, Spearman {row['spearman']['share']:.4f}"
        print(f"{design}, {n_backbones}: {shares}", flush=True)
    figures = {
        "machine": describe_machine(),
        "alpha": ALPHA,
        "level": level,
        "power": list(measure_power(arguments.replicates)),
        "processor_seconds": time.process_time() - start,
    }
    for row in figures["power"]:
        print(row, flush=True)
    save_png(draw(figures), arguments.output.with_suffix(".png"))
    write_figures(figures, arguments.output.with_suffix(".json"))
    # the slowest part last, so that the rest is there if it is stopped
    figures["mixed"] = [
        measure_mixed(n_backbones, design, arguments.mixed) for design, n_backbones in MIXED_AT
    ]
    figures["processor_seconds"] = time.process_time() - start
    write_figures(figures, arguments.output.with_suffix(".json"))
    print(figures["mixed"])


if __name__ == "__main__":
    main()
