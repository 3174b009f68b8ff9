"""Contract checks that a method, a set or an adapter of one's own runs against itself, under any test framework.

Each raises `AssertionError` with what does not hold. Nothing here needs pytest.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
