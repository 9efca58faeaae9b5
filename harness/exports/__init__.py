"""A snapshot for other programs: its voxelwise maps, and the network itself for the Hugging Face hub."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
