"""Constrained pruning of PyTorch models inside existing training loops.

The public names are imported when they are first used; ``__init__.pyi`` says from where. So ``detprune --help`` does
not wait for PyTorch, and a training loop does not load the command line.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("detprune")
