"""Pictures of mappings and brains: flat maps, layer maps, clusters, what regions read."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
