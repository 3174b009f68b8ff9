"""The network's targets: a cell per row and slot, and a coarse segmentation of the lanes.

They are those of Ultra-Fast-Lane-Detection's ``data/dataset.py``, with two deviations. The original draws lanes 16
pixels thick into a mask, transforms that, and takes the mean of a row's pixels; here a row is met by
the centre line of the labelled points itself. And the original, by a truncation, looks for the rows
230, 370 and 460 one pixel higher. All coordinates are pixels of the 1280x720 frame.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from detprune_lanes.grid import ABSENT, FRAME_HEIGHT, FRAME_WIDTH, Grid

_LONG_ENOUGH = 6  # rows that a lane needs to be extended
_THICKNESS = 16  # pixels of a lane in the segmentation
_STRIDE = 8  # network input per pixel of the segmentation


def lane_targets(points: Sequence[NDArray[np.float64]], grid: Grid) -> NDArray[np.int64]:
    """Cell of every anchor row and slot, (rows, lanes); ``grid.cells`` where there is no lane.

    Args:
        points: (x, y) down each slot's lane, (n, 2), n = 0 for no lane.
        grid: rows and cells.
    """
    anchors = grid.anchors()
    return to_cells(extend_to_bottom(anchor_positions(points, anchors), anchors), grid.cells)


def anchor_positions(
    points: Sequence[NDArray[np.float64]], anchors: NDArray[np.float64]
) -> NDArray[np.float64]:
    """x at which each lane crosses each anchor row, (lanes, rows); -2 where it does not.

    Linear between neighbouring points. At both ends a lane goes on for half of its last step: labels
    have a lane only in every tenth row of pixels, so that is how far it reaches on average, and a
    shift of the image neither lengthens nor shortens it. A lane that crosses a row more than once, as
    rotated ones may, is at the mean there; where it lies outside the image, it is absent.

    Args:
        points: (x, y) along each lane, (n, 2).
        anchors: y, (rows,), increasing.
    """
    positions = np.full((len(points), len(anchors)), float(ABSENT))
    y = anchors[:, None]
    for lane, line in zip(positions, points, strict=True):
        if len(line) < 2:
            continue
        first, last = 1.5 * line[0] - 0.5 * line[1], 1.5 * line[-1] - 0.5 * line[-2]
        line = np.vstack([first, line, last])
        (x0, y0), (x1, y1) = line[:-1].T, line[1:].T
        rise = y1 - y0
        along = np.divide(y - y0, rise, out=np.full((len(y), len(rise)), 0.5), where=rise != 0)
        crosses = (np.minimum(y0, y1) <= y) & (y <= np.maximum(y0, y1))  # (rows, segments)
        x = np.where(crosses, x0 + along * (x1 - x0), 0).sum(axis=1)
        count = crosses.sum(axis=1)
        np.divide(x, count, out=lane, where=count > 0)
    return _inside(positions)


def extend_to_bottom(
    positions: NDArray[np.float64], anchors: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Lanes that end above the last row, continued to it; a copy of (lanes, rows).

    A line x(y) is fitted to the lower half of the rows of a lane that has six or more of them; where
    the line leaves the image, the lane stays absent.
    """
    present = positions >= 0
    rank = present.cumsum(axis=1)  # 1 for a lane's uppermost row
    total = rank[:, -1:]
    half = present & (rank > total // 2)
    count = np.maximum(half.sum(axis=1, keepdims=True), 1)
    mean_y = (half * anchors).sum(axis=1, keepdims=True) / count
    mean_x = (half * positions).sum(axis=1, keepdims=True) / count
    dy = half * (anchors - mean_y)
    slope = (dy * positions).sum(axis=1, keepdims=True)
    slope /= np.maximum((dy * dy).sum(axis=1, keepdims=True), np.finfo(float).tiny)
    line = _inside(mean_x + slope * (anchors - mean_y))
    below = (rank == total) & ~present & (total >= _LONG_ENOUGH)
    return np.where(below, line, positions)


def to_cells(positions: NDArray[np.float64], cells: int) -> NDArray[np.int64]:
    """Cell numbers, (rows, lanes), of x, (lanes, rows); ``cells`` where there is no lane.

    A cell is (1280 − 1)/(cells − 1) pixels wide.
    """
    cell = np.floor_divide(positions, (FRAME_WIDTH - 1) / (cells - 1))
    return np.where(positions >= 0, cell, cells).astype(np.int64).T.copy()


def rasterise(points: Sequence[NDArray[np.float64]], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The segmentation, (H/8, W/8) for a network input of ``size`` (H, W): 0, or 1 + the slot.

    Lanes are drawn 16 pixels thick into the frame, of which the nearest pixels are taken.

    Args:
        points: (x, y) along each slot's lane, (n, 2).
        size: height and width of the network's input.
    """
    mask = np.zeros((FRAME_HEIGHT, FRAME_WIDTH), np.uint8)
    for slot, line in enumerate(points, start=1):
        if len(line):
            cv2.polylines(mask, [np.rint(line).astype(np.int32)], False, (slot,), _THICKNESS)
    height, width = size
    shape = (width // _STRIDE, height // _STRIDE)
    small = cv2.resize(mask, shape, interpolation=cv2.INTER_NEAREST_EXACT)
    return small.astype(np.uint8, copy=False)


def _inside(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where((positions >= 0) & (positions <= FRAME_WIDTH - 1), positions, float(ABSENT))
