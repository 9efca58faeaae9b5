"""What the layers of a backbone compute for images: extraction, a common frame, storage."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
