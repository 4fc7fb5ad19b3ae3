"""Region-wise maps, losses, training and evaluation for biomedical image segmentation.

What is public stands in the stub beside this file; each name is imported when it is first used, so that
``import rwtool`` and the command line start at once.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
