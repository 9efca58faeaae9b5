"""How to fine-tune: what of the backbone may change, what is minimised, and how it is measured afterwards."""

from __future__ import annotations

from harness.methods.tuned import TunedModel, tune

__all__ = ["TunedModel", "tune"]
