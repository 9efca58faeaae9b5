"""A against B: paired differences between the runs of two values of a setting.

Runs are paired by task and seed. Differences are taken at an equal step, and where both have learned their
task equally far (`harness.measures.values_at_shares`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from harness.config import ContrastConfig
from harness.measures import (
    flip_signs,
    seed_interval,
)
from harness.reporting.paired_measures import (
    list_measures,
    take,
)
from harness.reporting.pairs import (
    Pair,
    find_pairs,
    name_collapsed,
    name_differences,
)
from harness.reporting.run_results import RunResult
from harness.storage import (
    InputError,
    read_json,
    write_json,
)

FILE = "contrasts.json"


@dataclass(frozen=True)
class Contrast:
    """A against B.

    Attributes
    ----------
    factor, a, b : str
        Setting, and its values; differences are A − B.
    within : str
        Settings that both share and other contrasts of the study do not; may be empty.
    pairs : tuple of Pair
    table : DataFrame
        One row per measure and moment. Columns: metric, title, place, family, at (``last snapshot``, ``step
        16`` or ``50 % learned``), a and b (means over pairs), d (mean difference), low and high (95 %
        interval over seeds, NaN where a task has one seed), n (pairs), p (exact sign flips of pairs; NaN for
        one pair), p_family (corrected over the family), p_smallest (that so many pairs can reach), p_seeds
        (the same test with one sign per seed for all its tasks; NaN for one task or one seed).
    notes : tuple of str
        What else differs between A and B, collapsed runs, and runs without a partner.
    """

    factor: str
    a: str
    b: str
    within: str
    pairs: tuple[Pair, ...]
    table: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """A against B, and within what."""
        return f"{self.a} against {self.b}" + (f" ({self.within})" if self.within else "")


def contrast_runs(runs: Sequence[RunResult], question: ContrastConfig) -> list[Contrast]:
    """Compare the runs of A with those of B.

    Runs are paired by task and seed, and by every setting that varies among the runs of A, or of B, of one
    task and seed: methods, brains and variants are never mixed, and each has a contrast of its own.

    Raises
    ------
    InputError
        If the factor is no setting, no run has one of its values, or no run of A has a partner in B.
    """
    found = find_pairs(runs, question.factor, question.a, question.b)
    return [
        Contrast(
            found.factor,
            question.a,
            question.b,
            within,
            pairs,
            _tabulate(pairs),
            (
                *name_differences(pairs, found.factor),
                *name_collapsed(pairs, question.a, question.b),
                *found.alone,
            ),
        )
        for within, pairs in found.strata.items()
    ]


def _tabulate(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Build `Contrast.table`."""
    measures = list(list_measures(pairs))
    rows = [row for measured in measures for row in take(measured, pairs)]
    records = []
    families = dict.fromkeys(row.measured.family for row in rows)
    tasks, seeds = [pair.task for pair in pairs], [pair.seed for pair in pairs]
    several = len(set(tasks)) > 1 and len(set(seeds)) > 1
    for family in families:
        members = [row for row in rows if row.measured.family == family]
        differences = np.stack([row.a - row.b for row in members], axis=1)
        tests = flip_signs(differences)
        by_seed = flip_signs(_sum_seeds(differences, seeds)) if several else None
        for place, row in enumerate(members):
            own = differences[:, place]
            there = ~np.isnan(own)
            interval = seed_interval(own, tasks) or (float("nan"), float("nan"))
            testable = there.sum() > 1
            records.append(
                {
                    "metric": row.measured.metric,
                    "title": row.measured.title,
                    "place": row.measured.place,
                    "family": family,
                    "at": row.at,
                    "a": row.a[there].mean(),
                    "b": row.b[there].mean(),
                    "d": own[there].mean(),
                    "low": interval[0],
                    "high": interval[1],
                    "n": int(there.sum()),
                    "p": tests.p[place] if testable else float("nan"),
                    "p_family": tests.p_family[place] if testable else float("nan"),
                    "p_smallest": tests.smallest[place],
                    "p_seeds": float("nan") if by_seed is None else by_seed.p[place],
                }
            )
    order = {measured.metric: place for place, measured in enumerate(measures)}
    table = pd.DataFrame(records)
    return table.sort_values("metric", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def _sum_seeds(differences: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
    """Sum the differences of a seed over its tasks; those that a pair lacks are left out."""
    known = np.nan_to_num(differences)
    return np.stack(
        [known[[place for place, one in enumerate(seeds) if one == seed]].sum(axis=0) for seed in set(seeds)]
    )


# --- which contrasts a study's report shows


def record_question(study: Path, question: ContrastConfig) -> None:
    """Keep a question in a study's folder, so that its report answers it."""
    known = read_questions(study, [])
    if question not in known:
        write_json(study / FILE, [one.model_dump(mode="json") for one in [*known, question]])


def read_questions(study: Path, runs: Sequence[RunResult]) -> list[ContrastConfig]:
    """Read the questions of a study: those of its runs' settings, then those asked later.

    Raises
    ------
    InputError
        If the file of questions is broken.
    """
    asked = [run.config.study.contrast for run in runs if run.config.study.contrast is not None]
    path = study / FILE
    if path.exists():
        try:
            asked += [ContrastConfig(**one) for one in read_json(path)]
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: found a broken question ({error}); expected factor, a and b") from None
    return list(dict.fromkeys(asked))


def answer_questions(study: Path, runs: Sequence[RunResult]) -> tuple[list[Contrast], list[str]]:
    """Answer the questions of a study; those that the finished runs cannot answer are one line each."""
    found, lines = [], []
    for question in read_questions(study, runs):
        try:
            found += contrast_runs(runs, question)
        except InputError as error:
            lines.append(f"{question.a} against {question.b}: {error}")
    return found, lines
