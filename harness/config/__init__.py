"""All settings with defaults, units and ranges; composing, checking, writing and reading configurations."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
