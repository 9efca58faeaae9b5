"""Level and coverage of A against B, and of the intervals of Δ, on data whose truth is known.

    nice python benchmarks/contrast_level.py [--replicates 5000] [--output docs/validity_contrast.md]

Synthetic numbers only: no network is trained. Every table is drawn from seeds, so it can be repeated. Tables
that the output already has are kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from harness.measures import (
    Change,
    flip_signs,
    mean_delta_interval,
    seed_interval,
    values_at_shares,
)
from harness.measures.per_image import Hits

Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
NOISES: dict[str, Noise] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(3, shape),
    "hits of 150": lambda rng, shape: rng.binomial(150, 0.7, shape) / 150,
}
ALPHA = 0.05


def rate(rejected: Sequence[bool] | np.ndarray) -> str:
    """Write a share in percent with its 95 % binomial interval."""
    n, k = len(rejected), int(np.sum(rejected))
    low, high = stats.binomtest(k, n).proportion_ci(method="wilson")
    return f"{100 * k / n:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def draw_pairs(
    rng: np.random.Generator, n_tasks: int, n_seeds: int, noise: Noise, shared: float = 0.0
) -> tuple[np.ndarray, list[int], list[int]]:
    """Draw differences of exchangeable conditions; tasks differ in scale.

    `shared` is the share of the variance that the tasks of a seed have in common, as where all of them are
    measured against the same step 0.
    """
    tasks = [task for task in range(n_tasks) for _ in range(n_seeds)]
    seeds = [seed for _ in range(n_tasks) for seed in range(n_seeds)]
    own = noise(rng, (2, len(tasks)))
    if shared:
        own = np.sqrt(1 - shared) * own + np.sqrt(shared) * noise(rng, (2, n_seeds))[:, seeds]
    scale = np.ones(len(tasks)) if shared else 1.0 + np.array(tasks)
    return scale * (own[0] - own[1]), tasks, seeds


def attainable(n_pairs: int) -> float:
    """Largest attainable p of at most 5 %: the test's exact level without ties."""
    step = 2.0 ** (1 - n_pairs)
    return 100 * step * np.floor(ALPHA / step + 1e-9)


def tabulate_level(n_replicates: int) -> Iterator[str]:
    """Write how often labels that mean nothing are called different."""
    yield "| pairs (tasks × seeds) | attainable | " + " | ".join(NOISES) + " |"
    yield "| --- | --- |" + " --- |" * len(NOISES)
    for n_tasks, n_seeds in ((1, 3), (1, 5), (2, 3), (1, 7), (4, 2), (3, 3), (4, 3), (3, 5), (4, 5)):
        cells = []
        for place, noise in enumerate(NOISES.values()):
            rng = np.random.default_rng([1, n_tasks, n_seeds, place])
            draws = [draw_pairs(rng, n_tasks, n_seeds, noise)[0] for _ in range(n_replicates)]
            # one test per column: they share the patterns, not the data
            found = flip_signs(np.stack(draws, axis=1)).p
            cells.append(rate(found <= ALPHA))
        n = n_tasks * n_seeds
        level = attainable(min(n, 17))
        yield f"| {n} ({n_tasks} × {n_seeds}) | {level:.1f} | " + " | ".join(cells) + " |"


def tabulate_shared(n_replicates: int) -> Iterator[str]:
    """Write the level where the tasks of a seed share noise: by pairs, and by whole seeds."""
    yield "| tasks × seeds | shared variance | signs of pairs | signs of seeds | interval misses 0 |"
    yield "| --- | --- | --- | --- | --- |"
    for n_tasks, n_seeds in ((3, 3), (3, 8)):
        for shared in (0.0, 0.1, 0.25, 0.5):
            rng = np.random.default_rng([2, n_tasks, n_seeds, round(100 * shared)])
            by_pair, by_seed, missed = [], [], []
            for replicate in range(n_replicates):
                values, tasks, seeds = draw_pairs(rng, n_tasks, n_seeds, NOISES["normal"], shared)
                by_pair.append(values)
                by_seed.append([values[np.array(seeds) == seed].sum() for seed in range(n_seeds)])
                low, high = seed_interval(values, tasks, replicate, 1000) or (0.0, 0.0)
                missed.append(not low <= 0 <= high)
            cells = [rate(flip_signs(np.array(one).T).p <= ALPHA) for one in (by_pair, by_seed)]
            yield f"| {n_tasks} × {n_seeds} | {shared:.0%} | " + " | ".join([*cells, rate(missed)]) + " |"


def tabulate_family(n_replicates: int) -> Iterator[str]:
    """Write how often any of many measures is called different, alone and corrected."""
    yield "| measures | correlation | any p ≤ .05 | any corrected p ≤ .05 |"
    yield "| --- | --- | --- | --- |"
    for n_measures in (4, 40):
        for correlation in (0.0, 0.8):
            rng = np.random.default_rng([3, n_measures, round(10 * correlation)])
            alone, family = [], []
            for _ in range(n_replicates):
                common = rng.standard_normal((9, 1))
                own = rng.standard_normal((9, n_measures))
                found = flip_signs(np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own)
                alone.append(found.p.min() <= ALPHA)
                family.append(found.p_family.min() <= ALPHA)
            yield f"| {n_measures} | {correlation} | {rate(alone)} | {rate(family)} |"


def tabulate_coverage(n_replicates: int) -> Iterator[str]:
    """Write how often the interval over seeds holds the true difference, which differs between tasks."""
    yield "| tasks × seeds | " + " | ".join(NOISES) + " | a plain percentile interval, normal |"
    yield "| --- |" + " --- |" * (len(NOISES) + 1)
    for n_tasks, n_seeds in ((1, 3), (1, 5), (1, 10), (3, 2), (3, 3), (3, 5)):
        cells, plain = [], []
        for place, noise in enumerate(NOISES.values()):
            rng = np.random.default_rng([4, n_tasks, n_seeds, place])
            covered = []
            for replicate in range(n_replicates):
                values, tasks, _ = draw_pairs(rng, n_tasks, n_seeds, noise)
                truth = np.array(tasks) - 1.0
                low, high = seed_interval(values + truth, tasks, replicate, 1000) or (0.0, 0.0)
                covered.append(low <= truth.mean() <= high)
                if place == 0:
                    blocks = (values + truth).reshape(n_tasks, n_seeds)
                    drawn = rng.integers(n_seeds, size=(1000, n_tasks, n_seeds))
                    means = np.take_along_axis(blocks[None], drawn, axis=2).mean(axis=(1, 2))
                    ends = np.quantile(means, [0.025, 0.975])
                    plain.append(ends[0] <= truth.mean() <= ends[1])
            cells.append(rate(covered))
        yield f"| {n_tasks} × {n_seeds} | " + " | ".join([*cells, rate(plain)]) + " |"


def draw_change(
    rng: np.random.Generator, n_images: int, lost: np.ndarray, gained: np.ndarray, images: str = ""
) -> Change:
    """Draw hits of a probe that loses and gains images with these chances, one per image."""
    chance = rng.random(n_images)
    before = np.where(
        chance < lost, True, np.where(chance < lost + gained, False, rng.random(n_images) < 0.5)
    )
    after = np.where(chance < lost, False, np.where(chance < lost + gained, True, before))
    return Change(Hits(before), Hits(after), images)


def tabulate_images(n_replicates: int) -> Iterator[str]:
    """Write how often the interval of one run's Δ holds the truth."""
    changes = ((0.0, 0.0), (0.02, 0.02), (0.05, 0.02), (0.15, 0.05), (0.4, 0.1))
    yield "| test images | " + " | ".join(f"lost {a:.0%}, gained {b:.0%}" for a, b in changes) + " |"
    yield "| --- |" + " --- |" * len(changes)
    for n_images in (50, 150, 500):
        cells = []
        for place, (lost, gained) in enumerate(changes):
            rng = np.random.default_rng([5, n_images, place])
            covered = []
            for replicate in range(n_replicates):
                change = draw_change(rng, n_images, np.full(n_images, lost), np.full(n_images, gained))
                low, high = mean_delta_interval([change], replicate, 2000) or (1.0, 0.0)
                covered.append(low <= gained - lost <= high)
            cells.append(rate(covered))
        yield f"| {n_images} | " + " | ".join(cells) + " |"


def tabulate_seeds_and_images(n_replicates: int) -> Iterator[str]:
    """Write how often the interval of the mean Δ over seeds holds the truth."""
    spreads = (0.0, 0.03, 0.08)
    yield "| seeds | test images | " + " | ".join(f"sd over seeds {spread}" for spread in spreads) + " |"
    yield "| --- | --- |" + " --- |" * len(spreads)
    n_images = 150
    for n_seeds in (2, 3, 5):
        for same in (False, True):
            cells = []
            for place, spread in enumerate(spreads):
                rng = np.random.default_rng([6, n_seeds, same, place])
                covered = []
                for replicate in range(n_replicates):
                    # some images are easily lost: what seeds share if they are tested on the same ones
                    easy = rng.beta(0.5, 2.0, n_images)
                    changes = []
                    for seed in range(n_seeds):
                        images = easy if same else rng.beta(0.5, 2.0, n_images)
                        moved = np.clip(spread * rng.standard_normal(), -0.1, 0.1)
                        name = "same" if same else str(seed)
                        lost = np.clip(0.6 * images + 0.05 + np.maximum(-moved, 0), 0, 0.8)
                        gained = np.full(n_images, 0.05 + max(moved, 0.0))
                        changes.append(draw_change(rng, n_images, lost, gained, name))
                    low, high = mean_delta_interval(changes, replicate, 1000) or (1.0, 0.0)
                    # the clips never act on the mean of 0.6 · Beta(.5, 2), whose mean is .2
                    covered.append(low <= -0.6 * 0.2 <= high)
                cells.append(rate(covered))
            yield f"| {n_seeds} | {'the same' if same else 'others'} | " + " | ".join(cells) + " |"


def tabulate_learning(n_replicates: int) -> Iterator[str]:
    """Write how often two networks that forget equally per learning differ, if one learns faster."""
    steps = np.array([0.0, 4, 16, 64, 256, 1000])
    yield "| A learns | at the step 64 | at 50 % learned | at 90 % learned |"
    yield "| --- | --- | --- | --- |"
    for faster in (1.0, 2.0, 4.0):
        rng = np.random.default_rng([7, round(faster)])
        by_step, by_share = [], []
        for _ in range(n_replicates):
            differences = []
            for _ in range(9):
                accuracies, losses = [], []
                for rate_of in (faster, 1.0):
                    share = 1 - np.exp(-steps * rate_of / 150)
                    # noise of a probe on 500 images, in a rising curve
                    accuracies.append(np.clip(0.3 + 0.6 * share + 0.01 * rng.standard_normal(6), 0, 1))
                    losses.append(-0.2 * share + np.r_[0, 0.02 * rng.standard_normal(5)])
                found = values_at_shares(accuracies, losses, [0.5, 0.9])
                differences.append([losses[0][3] - losses[1][3], *(found[0] - found[1])])
            by_step.append([one[0] for one in differences])
            by_share.append([one[1:] for one in differences])
        cells = [rate(flip_signs(np.array(by_step).T).p <= ALPHA)]
        cells += [rate(flip_signs(np.array(by_share)[:, :, one].T).p <= ALPHA) for one in (0, 1)]
        yield f"| {faster:g} times as fast | " + " | ".join(cells) + " |"


INTRODUCTION = """# A against B: level and coverage

Made by `python benchmarks/contrast_level.py --output docs/validity_contrast.md` from data whose truth is
known. Brackets are 95 % binomial intervals."""

TABLES = (
    (
        "Shuffled labels",
        "Percent of replicates with p ≤ .05 where A and B are exchangeable. *Attainable* is the exact level "
        "of a test with so many pairs: five cannot reach .05 at all, six reach .031. Ties, as of hits, make "
        "it smaller.",
        5_000,
        tabulate_level,
    ),
    (
        "Where tasks share noise",
        "All tasks of a seed are measured against the same step 0, so their differences may have variance in "
        "common; then signs of pairs are not independent. Signs of whole seeds stay exact, and three seeds "
        "cannot reach less than .25.",
        1_000,
        tabulate_shared,
    ),
    (
        "Many measures",
        "Nine pairs, no difference in any measure: percent of replicates that call any of them different.",
        1_000,
        tabulate_family,
    ),
    (
        "Intervals over seeds",
        "Percent of 95 % intervals that hold the true mean difference. The last "
        "column is the bootstrap without its two corrections for few seeds.",
        600,
        tabulate_coverage,
    ),
    (
        "Intervals of Δ over test images",
        "Percent of 95 % intervals of one run's Δ that hold the truth.",
        600,
        tabulate_images,
    ),
    (
        "Intervals of Δ over seeds and test images",
        "The same for the mean over seeds, 150 test images each, the same or "
        "others for every seed. The mean Δ is −.12; one run's standard error over images is about .04.",
        200,
        tabulate_seeds_and_images,
    ),
    (
        "Equal step and equal learning",
        "A and B forget equally for what they have learned, but A learns faster; nine pairs. Percent of "
        "replicates with p ≤ .05.",
        600,
        tabulate_learning,
    ),
)


def main() -> None:
    """Write all tables as they are made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=5000, help="at most; some tables take fewer")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    parts = [INTRODUCTION]
    before = ""
    if arguments.output is not None and arguments.output.exists():
        before = arguments.output.read_text(encoding="utf-8")
    known = {part.partition("\n")[0]: part.strip() for part in before.split("\n## ")[1:]}
    for title, text, most, tabulate in TABLES:
        n = min(arguments.replicates, most)
        part = known.get(title)
        if part is None:
            part = f"{title}\n\n{text} {n:,} replicates a cell.\n\n" + "\n".join(tabulate(n))
        parts.append(part)
        print(f"## {part}\n", flush=True)
        if arguments.output is not None:
            arguments.output.write_text("\n\n## ".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
