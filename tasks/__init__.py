"""Labelled image data sets: to fine-tune on, or as probes of what is retained."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
