"""Pretrained vision networks behind one interface: timm, open_clip, diffusers and the mini architecture."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
