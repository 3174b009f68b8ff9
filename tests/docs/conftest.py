"""Puts what builds the documentation on the path: the Sphinx extensions, and the script of the README's picture."""

import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(_ROOT / "docs" / "_ext"), str(_ROOT / "tools")]
