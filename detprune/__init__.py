"""Constrained pruning of PyTorch models inside the training loops that people already use.

The public names are imported when they are first used; ``__init__.pyi`` says from where. So ``detprune --help`` need
not wait for PyTorch, and a training loop loads nothing of the command line.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("detprune")
