"""Settings of fits as they were when older results were recorded: places and weights by gradient descent."""

from __future__ import annotations

DESCENT_ALONE = ("mapping.start=centre", "mapping.readout=descent", "mapping.lr=5e-3")
# with the number of steps that the demo had then
DEMO_BY_DESCENT = (*DESCENT_ALONE, "mapping.steps=100", "mapping.regularization_steps=50")
