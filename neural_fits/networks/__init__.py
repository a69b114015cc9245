"""Further networks: capsules, U-Net, recurrent time-resolved sites, and fine-tuning."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
