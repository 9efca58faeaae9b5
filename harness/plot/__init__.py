"""Figures of mappings and brains: maps of voxels, layers, clusters, and what regions read."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
