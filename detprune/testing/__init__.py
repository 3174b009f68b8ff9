"""Contract checks for your own method, set or adapter, for any test framework.

Each check raises an `AssertionError` that names what does not hold. Nothing here needs pytest.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
