"""Labelled image data sets, to fine-tune on or to probe what a backbone retains."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
