"""Names of distribution shifts: common corruptions by group, and shifts of the shapes world."""

from __future__ import annotations

from collections.abc import Iterable

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
