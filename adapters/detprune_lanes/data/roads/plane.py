"""The road from above: a picture in which textures are drawn, and how a camera sees it.

Columns are lateral positions. Rows are logarithms of the distance, so that a row of the picture is
about as fine, compared with a row of the frame, near the car as far from it.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from detprune_lanes.data.roads.canvas import Image, as_image
from detprune_lanes.data.roads.view import View
from detprune_lanes.grid import FRAME_HEIGHT, FRAME_WIDTH

LENGTH, WIDTH = 640, 640

_NEAR, _FAR = 3.0, 130.0  # metres ahead of the camera of the first and the last row
_MARGIN = 0.3  # lane widths beyond the edges of the road


@dataclass(frozen=True)
class Plane:
    """A picture of the road from above, (LENGTH, WIDTH).

    Attributes:
        left, right: lateral positions where the road's surface ends.
        maps: column and row of the picture for each pixel of the frame from the view's top row down.
    """

    left: float
    right: float
    maps: tuple[NDArray[np.float32], NDArray[np.float32]]

    def columns(self, lateral: ArrayLike) -> NDArray[np.float64]:
        """Columns of lateral positions, in lane widths."""
        start, stretch = _across(self.left, self.right)
        return start + stretch * np.asarray(lateral, np.float64)

    def rows(self, depth: ArrayLike) -> NDArray[np.float64]:
        """Rows of distances, in metres."""
        return _down(depth)

    def laterals(self) -> NDArray[np.float64]:
        """The lateral position of every column, (WIDTH,)."""
        return np.linspace(self.left - _MARGIN, self.right + _MARGIN, WIDTH)

    def seen(self, picture: Image) -> Image:
        """The picture as the camera sees it, from the view's top row to the frame's last."""
        return as_image(
            cv2.remap(picture, *self.maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        )


def plane_of(view: View, left: float, right: float) -> Plane:
    """Lay the plane under a view; ``left`` and ``right`` are where the road's surface ends."""
    rows = np.arange(view.top, FRAME_HEIGHT)
    start, stretch = _across(left, right)
    # The column is linear in x within each row: two numbers a row are enough.
    step = stretch / view.scale(rows)
    begin = start - view.centre[rows] * step
    columns = np.arange(FRAME_WIDTH, dtype=np.float32) * step.astype(np.float32)[:, None]
    columns += begin.astype(np.float32)[:, None]
    down = _down(view.depth(rows)).astype(np.float32)[:, None].repeat(FRAME_WIDTH, axis=1)
    return Plane(left, right, (columns, down))


def _across(left: float, right: float) -> tuple[float, float]:
    """The column of lateral position 0, and columns per lane width."""
    stretch = (WIDTH - 1) / (right - left + 2 * _MARGIN)
    return (_MARGIN - left) * stretch, stretch


def _down(depth: ArrayLike) -> NDArray[np.float64]:
    log = np.log(np.maximum(depth, 0.5) / _NEAR)
    rows: NDArray[np.float64] = log * ((LENGTH - 1) / math.log(_FAR / _NEAR))
    return rows
