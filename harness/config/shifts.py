"""Names of distribution shifts: common corruptions by group, and shifts of the shapes world."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from pydantic import Field, model_validator

from harness.config.base import Count, Section

CORRUPTION_GROUPS: dict[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
"""Corruptions of ImageNet-C (Hendrycks & Dietterich 2019), in its groups; without frost."""

CORRUPTIONS = tuple(name for group in CORRUPTION_GROUPS.values() for name in group)
"""All corruptions, in the order of ImageNet-C."""

ALL_CORRUPTIONS = "corruptions"
"""Name of all of them together."""

SEVERITIES = (1, 2, 3, 4, 5)

WORLD_SHIFTS = ("textures", "colours", "backgrounds", "sizes", "combinations")
"""Shifts of the shapes world: a factor takes values that no training image has."""

WORLD = "world"
"""Name of all of them together."""

SHIFT_NAMES = (ALL_CORRUPTIONS, *CORRUPTION_GROUPS, *CORRUPTIONS, WORLD, *WORLD_SHIFTS)
"""All that a list of shifts may name."""


def chosen_corruptions(shifts: Iterable[str]) -> tuple[str, ...]:
    """List the corruptions that a list of shifts names, alone, in groups or all together."""
    names = set(shifts)
    return tuple(
        corruption
        for group, members in CORRUPTION_GROUPS.items()
        for corruption in members
        if names & {ALL_CORRUPTIONS, group, corruption}
    )


def chosen_world_shifts(shifts: Iterable[str]) -> tuple[str, ...]:
    """List the shifts of the shapes world that a list of shifts names, alone or all together."""
    names = set(shifts)
    return tuple(shift for shift in WORLD_SHIFTS if names & {WORLD, shift})


class ShiftsConfig(Section):
    """How shifts are measured; which ones, `task.shifts` and `probes.shifts` say."""

    n_corrupted: Count = Field(100, description="test images per task to corrupt, or all if it has fewer")
    severities: tuple[int, ...] = Field(SEVERITIES, min_length=1, description="of corruptions, of 1 to 5")

    @model_validator(mode="after")
    def _severities_exist(self) -> ShiftsConfig:
        if not set(self.severities) <= set(SEVERITIES) or len(set(self.severities)) < len(self.severities):
            raise ValueError(f"found severities {list(self.severities)}, expected some of 1 to 5, each once")
        return self


def check_shifts(shifts: tuple[str, ...]) -> None:
    """Raise a ValueError for a name that is no shift, or occurs twice."""
    for name in shifts:
        if name not in SHIFT_NAMES:
            near = get_close_matches(name, SHIFT_NAMES, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"found shift {name!r}, expected some of {', '.join(SHIFT_NAMES)}{hint}")
        if shifts.count(name) > 1:
            raise ValueError(f"found shift {name!r} {shifts.count(name)} times, expected once")
