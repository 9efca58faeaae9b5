"""Pairs of runs of the same task and seed that differ in one setting, and in what else they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness.config import flatten
from harness.reporting.run_results import RunResult
from harness.storage import (
    InputError,
    unknown_name,
)

# settings that say which network a backbone is: they differ because the compared factor does
IDENTITY = ("name", "library", "model", "weights", "checkpoint", "objective", "text", "quick_gelu", "seed")


class Pair(NamedTuple):
    """Two runs of the same task and seed."""

    task: str
    seed: int
    a: RunResult
    b: RunResult


@dataclass(frozen=True)
class Paired:
    """Pairs of a study's runs.

    Attributes
    ----------
    factor : str
        Full name of the setting that tells A from B.
    strata : dict of str to tuple of Pair
        By the settings in which pairs differ from other pairs of the study, beside task and seed; the only
        key is empty if there are none.
    alone : tuple of str
        Says how many runs have no partner.
    """

    factor: str
    strata: dict[str, tuple[Pair, ...]]
    alone: tuple[str, ...]


def find_pairs(runs: Sequence[RunResult], factor: str, a: str, b: str) -> Paired:
    """Pair the runs of two values of a setting by task, seed and whatever varies among the runs of a side.

    Parameters
    ----------
    runs : sequence of RunResult
    factor : str
        A setting, ``finetune.lr``, or a group, ``backbone``.
    a, b : str
        Its values, as on the command line.

    Raises
    ------
    InputError
        If the factor is no setting, no run has one of its values, or no run of A has a partner in B.
    """
    settings = {run.folder: flatten(run.config) for run in runs}
    factor = _find_factor(factor, settings)
    sides = [[run for run in runs if _same(settings[run.folder].get(factor), value)] for value in (a, b)]
    for value, side in zip((a, b), sides, strict=True):
        if not side:
            known = {one[factor] for one in settings.values() if factor in one}
            raise unknown_name(f"value of {factor} in the study's finished runs", value, known)
    ignored = _ignored(factor)
    varied = sorted(set().union(*(_varying(side, settings, ignored) for side in sides)))

    def key(run: RunResult) -> tuple[object, ...]:
        return (
            run.config.task.name,
            run.config.seed,
            *(settings[run.folder].get(name) for name in varied),
        )

    partners = {key(run): run for run in sides[1]}
    strata: dict[tuple[object, ...], list[Pair]] = {}
    for run in sides[0]:
        found = partners.get(key(run))
        if found is not None:
            pair = Pair(run.config.task.name, run.config.seed, run, found)
            strata.setdefault(key(run)[2:], []).append(pair)
    if not strata:
        more = f" and {', '.join(varied)}" if varied else ""
        raise InputError(
            f"{factor}: found no run of {a} with the task, seed{more} of a run of {b}; "
            "expected at least one pair"
        )
    n_alone = [len(side) - sum(map(len, strata.values())) for side in sides]
    alone = [
        f"{n} run{'s' * (n > 1)} of {value} without a partner, left out"
        for n, value in zip(n_alone, (a, b), strict=True)
        if n
    ]
    distinct = [place for place in range(len(varied)) if len({values[place] for values in strata}) > 1]
    named = {}
    for values, pairs in strata.items():
        within = [f"{varied[place]}={values[place]}" for place in distinct if values[place] is not None]
        named[", ".join(within)] = tuple(pairs)
    return Paired(factor, named, tuple(alone))


def _find_factor(name: str, settings: dict[Path, dict[str, str]]) -> str:
    known = {setting for one in settings.values() for setting in one}
    for candidate in (name, f"{name}.name", f"{name}.family"):
        if candidate in known:
            return candidate
    raise unknown_name("setting", name, known)


def _same(found: str | None, wanted: str) -> bool:
    """Whether a setting has a value, however the number is written."""
    if found is None or found == wanted:
        return found == wanted
    try:
        return float(found) == float(wanted)
    except ValueError:
        return False


def _ignored(factor: str) -> tuple[str, ...]:
    """Settings that come with the factor: a whole section, ending in a dot, if it names an option."""
    section, _, last = factor.rpartition(".")
    whole = last in ("name", "family", "objective", "size") and section
    return ("seed", "task.name", f"{section}." if whole else factor)


def _varying(
    side: Sequence[RunResult], settings: dict[Path, dict[str, str]], ignored: Sequence[str]
) -> set[str]:
    """Settings that vary among runs of one side of the same task and seed."""
    groups: dict[tuple[str, int], list[dict[str, str]]] = {}
    for run in side:
        groups.setdefault((run.config.task.name, run.config.seed), []).append(settings[run.folder])
    return {
        name
        for alike in groups.values()
        for name in set().union(*alike)
        if len({one.get(name) for one in alike}) > 1
        and not any(name == one or (one.endswith(".") and name.startswith(one)) for one in ignored)
    }


def name_differences(pairs: Sequence[Pair], factor: str) -> Iterator[str]:
    """Name settings that differ between the runs of a pair and do not only say which A and B are."""
    settings = {run.folder: flatten(run.config) for pair in pairs for run in (pair.a, pair.b)}
    section = factor.rpartition(".")[0]
    own = {factor, *(f"{section}.{name}" for name in IDENTITY if factor.endswith((".name", ".objective")))}
    if factor.endswith(("method.name", "mapping.family", "brain.name")):
        # options of these have settings of their own, which come with the option
        own |= {
            name
            for pair in pairs
            for name in {*settings[pair.a.folder]} ^ {*settings[pair.b.folder]}
            if name.startswith(f"{section}.")
        }
    found: dict[str, list[tuple[str, str]]] = {}
    for pair in pairs:
        first, second = settings[pair.a.folder], settings[pair.b.folder]
        for name in {*first, *second} - own:
            if first.get(name) != second.get(name):
                found.setdefault(name, []).append((first.get(name, "absent"), second.get(name, "absent")))
    for name in sorted(found):
        values = " and ".join(f"{one} against {other}" for one, other in dict.fromkeys(found[name]))
        some = f", in {len(found[name])} of {len(pairs)} pairs" if len(found[name]) < len(pairs) else ""
        yield f"also different: {name}, {values}{some}"
    ends = {(pair.a.steps[-1], pair.b.steps[-1]) for pair in pairs if pair.a.steps[-1] != pair.b.steps[-1]}
    if ends:
        values = " and ".join(f"{one} against {other}" for one, other in sorted(ends))
        yield f"also different: the last step, {values}; the last snapshot is the last they share"


def name_collapsed(pairs: Sequence[Pair], a: str, b: str) -> Iterator[str]:
    """Say how many runs of either side had collapsed at their last snapshot."""
    for value, runs in ((a, [pair.a for pair in pairs]), (b, [pair.b for pair in pairs])):
        n = sum((run.find("collapse/all/collapsed", "end")[2] or 0.0) > 0 for run in runs)
        if n:
            yield f"{n} of {len(runs)} runs of {value} collapsed: their rewiring says nothing"
