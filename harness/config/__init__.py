"""Every setting with its default, unit and range; configurations composed, checked, written and read."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
