"""Reads files that may be damaged, of another kind or written by somebody else, and writes files that appear whole."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
