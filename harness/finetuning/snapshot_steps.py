"""The steps after which snapshots are kept."""

from __future__ import annotations

from collections.abc import Sequence

from harness.config import SnapshotsConfig


def snapshot_steps(config: SnapshotsConfig, n_steps: int, steps_per_epoch: int) -> list[int]:
    """Return the steps to keep: 0, a geometric series, epoch ends if wanted, and the last.

    With `config.evenly`, that many evenly spaced steps instead of series and epoch ends, or all if there are
    fewer.
    """
    if config.evenly is not None:
        return sorted({round(n_steps * part / config.evenly) for part in range(config.evenly + 1)})
    steps, place = {0, n_steps}, float(config.first)
    while place < n_steps:
        steps.add(round(place))
        place *= config.ratio
    if config.at_epoch_ends:
        steps.update(range(steps_per_epoch, n_steps, steps_per_epoch))
    return sorted(steps)


def sequence_steps(config: SnapshotsConfig, lengths: Sequence[tuple[int, int]]) -> list[int]:
    """Return the steps to keep in a sequence of tasks: those of each task, counted on.

    `lengths` has optimizer steps and steps per epoch for each task. The end of each task is always kept.
    """
    steps, before = {0}, 0
    for n_steps, steps_per_epoch in lengths:
        steps.update(before + step for step in snapshot_steps(config, n_steps, steps_per_epoch))
        before += n_steps
    return sorted(steps)
