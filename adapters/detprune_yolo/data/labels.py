# SPDX-License-Identifier: AGPL-3.0-or-later
"""Labels of drawn objects for each task: boxes, polygons of the visible part, key points, rotated boxes."""

import cv2
import numpy as np
from numpy.typing import NDArray

from detprune_yolo.data.shapes import Box

POINTS = ("centre", "top", "right", "bottom", "left")
"""Key points of every shape: the centre, and the outline's outermost points, which turning a shape moves."""

MIRRORED = (0, 1, 4, 3, 2)
"""Number of the key point that has the place of each in a mirrored image."""

_FINER = 4  # contours are followed on pixels of a quarter of the side, for they run through pixel centres
_SMOOTH = 0.5  # pixels that a polygon may be off

Array = NDArray[np.float64]


def polygon(box: Box) -> Array:
    """One polygon around all visible parts of an object, (points, 2), in pixels.

    Parts, and holes of a ring, are joined by lines there and back, which have no area, because a YOLO label is one
    polygon. Filling by the even-odd rule, as OpenCV and pycocotools do, gives the visible part.
    """
    fine = np.asarray(np.kron(box.seen, np.ones((_FINER, _FINER))), np.uint8)
    contours, _ = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in contours:
        smooth = cv2.approxPolyDP(contour, _SMOOTH * _FINER, True)
        if len(smooth) >= 3:
            parts.append((smooth.reshape(-1, 2) + 0.5) / _FINER)
    parts.sort(key=lambda part: (-len(part), part[0].tolist()))
    joined = parts[0]
    for part in parts[1:]:
        apart = ((joined[:, None] - part[None]) ** 2).sum(axis=2)
        here, there = np.unravel_index(int(apart.argmin()), apart.shape)
        turned = np.roll(part, -int(there), axis=0)
        bridge = [joined[: here + 1], turned, turned[:1], joined[here:]]
        joined = np.concatenate(bridge)
    return np.asarray(joined, np.float64)


def keypoints(box: Box) -> Array:
    """The key points of an object, (5, 3): x and y in pixels, and 2 if it is visible, 1 if covered, 0 if outside."""
    size, outline = len(box.seen), box.outline
    middle = (outline.min(axis=0) + outline.max(axis=0)) / 2
    outermost = (
        *(outline[:, 1].argmin(), outline[:, 0].argmax()),
        *(outline[:, 1].argmax(), outline[:, 0].argmin()),
    )
    found = np.zeros((len(POINTS), 3))
    for number, (x, y) in enumerate([middle, *outline[list(outermost)]]):
        if not (0 <= x < size and 0 <= y < size):
            continue
        found[number] = x, y, 1 if box.covered[int(y), int(x)] else 2
    return found


def corners(box: Box) -> Array:
    """The smallest rectangle, turned at will, around the visible part of an object, (4, 2), in pixels."""
    rows, columns = np.nonzero(box.seen)
    places = np.stack([columns, rows], axis=1)
    cells = np.concatenate([places + shift for shift in ((0, 0), (1, 0), (0, 1), (1, 1))])
    hull = cv2.convexHull(cells.astype(np.int32)).reshape(-1, 2).astype(np.float64)
    best, least = hull[:4], np.inf
    for edge in np.roll(hull, -1, axis=0) - hull:  # one side of the smallest lies on an edge
        along = edge / np.sqrt((edge**2).sum())
        axes = np.stack([along, [-along[1], along[0]]])
        low, high = (hull @ axes.T).min(axis=0), (hull @ axes.T).max(axis=0)
        if (area := float((high - low).prod())) < least - 1e-9:
            least = area
            local = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
            best = local @ axes
    return best
