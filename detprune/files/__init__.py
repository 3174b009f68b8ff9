"""Safe reading of files that may be damaged, malicious or of another kind, and writing of files that appear whole."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
