"""Assignment of a frame's lanes to the network's four slots.

The rules are those with which Ultra-Fast-Lane-Detection converts TuSimple's labels: at most two lanes
left and two right of the car, slots 0 to 3 from left to right (its masks number them 1 to 4).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detprune_lanes.grid import FRAME_WIDTH

SLOTS = 4

_SHORTEST = 90.0  # pixels between the first and the last point of a lane


def assign_slots(
    lanes: Sequence[NDArray[np.float64]], rows: NDArray[np.float64]
) -> tuple[int | None, ...]:
    """The number of the lane in each slot, (4,), None where there is none.

    The angle of a lane is the arctan of the slope of a line y(x), fitted to its points by least
    squares. It is negative left of the car and positive right of it, and the steeper the lane, the
    nearer it is to the car: of more than two lanes on a side, the two steepest remain. Lanes shorter
    than 90 pixels are left out, and so is a lane of slope 0.

    The original does not foresee two cases. A vertical lane has no such line: here it is the steepest,
    on the side of the image on which it lies. Of two lanes of equal slope the original draws the
    first twice: here the first is the one nearer to the car. Neither is in TuSimple's labels.

    Args:
        lanes: x in every row, (R,) each, pixels of the frame; negative where the lane is not seen.
        rows: y, (R,).
    """
    angles = [_angle(x, rows) for x in lanes]
    left = sorted((n for n, a in enumerate(angles) if a < 0), key=lambda n: angles[n])
    right = sorted((n for n, a in enumerate(angles) if a > 0), key=lambda n: -angles[n])
    second, first = (*left[:2], None, None)[:2], (*right[:2], None, None)[:2]
    return (second[1], second[0], first[0], first[1])


def slot_points(
    lanes: Sequence[NDArray[np.float64]], rows: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """The seen points (x, y) of the lane in each slot, four arrays of (n, 2), n = 0 for no lane.

    Args:
        lanes: x in every row, (R,) each, pixels of the frame; negative where the lane is not seen.
        rows: y, (R,).
    """
    return [
        np.empty((0, 2)) if number is None else _seen(lanes[number], rows)
        for number in assign_slots(lanes, rows)
    ]


def _seen(x: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([x, rows], axis=1)[x >= 0]


def _angle(x: NDArray[np.float64], rows: NDArray[np.float64]) -> float:
    """The lane's angle in radians; 0 for a lane that is left out."""
    points = _seen(x, rows)
    if not len(points) or math.dist(points[0], points[-1]) < _SHORTEST:
        return 0.0
    centre = points.mean(axis=0)
    dx, dy = (points - centre).T
    if not dx.any():
        return math.copysign(math.pi / 2, centre[0] - (FRAME_WIDTH - 1) / 2)
    # no dot products: some processors fuse multiply and add in them, so that a slope of 0 would not be exactly 0
    return math.atan((dx * dy).sum() / (dx * dx).sum())
