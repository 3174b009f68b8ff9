"""The grid in which Ultra-Fast-Lane-Detection looks for lanes: rows of an image, and cells along each row.

Qin, Wang and Li, "Ultra Fast Structure-aware Deep Lane Detection", ECCV 2020, section 3.1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detprune.errors import InputError

FRAME_HEIGHT, FRAME_WIDTH = 720, 1280
"""Pixels of TuSimple's frames, in which its labels, submissions and metric are written."""

ABSENT = -2
"""TuSimple's x where a lane is not seen in a row."""

_FIRST, _LAST, _OF = 64, 284, 288  # rows of the original's anchors in an image of 288 rows


@dataclass(frozen=True)
class Grid:
    """The grid of a lane network: cells across the image, rows down it, and slots for lanes.

    The rows lie evenly between y = 160 and y = 710 of 720, the first and the last row of TuSimple's labels; 56
    rows are exactly those of the labels. Class ``cells`` stands for "no lane in this row".

    Attributes:
        cells: number of cells across the image.
        rows: number of rows down the image.
        lanes: number of slots for lanes; TuSimple's metric needs 4.

    Raises:
        InputError: a value out of range.
    """

    cells: int = 100
    rows: int = 56
    lanes: int = 4

    def __post_init__(self) -> None:
        for name, low, high in (("cells", 2, 1000), ("rows", 2, 200), ("lanes", 4, 4)):
            value: Any = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                allowed = f"{low}" if low == high else f"a whole number from {low} to {high}"
                raise InputError(f"{name} of the lane grid is {value!r}; allowed is {allowed}")

    @property
    def outputs(self) -> int:
        """Logits per image: (cells + 1) · rows · lanes."""
        return (self.cells + 1) * self.rows * self.lanes

    def anchors(self, height: float = FRAME_HEIGHT) -> NDArray[np.float64]:
        """The y of every row in an image of that height, (rows,), from the top down."""
        return np.linspace(_FIRST, _LAST, self.rows) * (height / _OF)
