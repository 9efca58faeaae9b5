"""Files and errors: atomic writes, hashes, image and array files, the hub, one-line errors."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
