"""Looking inside a network or a fitted site: where in the image, which features, which frequencies."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
