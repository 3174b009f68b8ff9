"""Pruning inside Lightning: callbacks for any LightningModule, and the training of the tasks of detprune."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
