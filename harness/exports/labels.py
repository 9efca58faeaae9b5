"""The table of layer names with colours, for GIFTI and CIFTI labels."""

from __future__ import annotations

from collections.abc import Sequence

from harness.plot import shade_layers

Colour = tuple[float, float, float, float]


def label_layers(layers: Sequence[str]) -> dict[int, tuple[str, Colour]]:
    """Name and colour (RGBA, 0 to 1) of every label: 0 is no voxel, 1 the first layer.

    Colours are those of Palimpsest's own figures, blue (first) to red (last).
    """
    table: dict[int, tuple[str, Colour]] = {0: ("???", (0.0, 0.0, 0.0, 0.0))}
    for number, (name, colour) in enumerate(zip(layers, shade_layers(len(layers)), strict=True), 1):
        red, green, blue = (float(part) for part in colour)
        table[number] = (name, (red, green, blue, 1.0))
    return table
