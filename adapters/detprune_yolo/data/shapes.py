# SPDX-License-Identifier: AGPL-3.0-or-later
"""Draws one image of the shapes data set: six classes on textured backgrounds, and their boxes.

All randomness comes from the generator that is passed in. Shapes are rasterised in integers, and
OpenCV is used only where its result does not depend on the processor.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

CLASSES = ("disk", "square", "triangle", "star", "ring", "cross")
MIN_VISIBLE = 0.4
"""Least visible share of an object's area; a place that leaves an object less is not used."""

SMALLEST, LARGEST = 0.12, 0.45
"""Smallest and largest longer side of an object, as a share of the image's side."""

MOST_OBJECTS = 6
_TRIES = 12
_CONTRAST = 90.0  # Euclidean distance in RGB between an object's colours and what it covers
_SHIFT = 4  # fractional bits of OpenCV's coordinates

Image = NDArray[np.uint8]
Points = NDArray[np.float64]


class Box(NamedTuple):
    """An object: class number, the tight box of its visible part in whole pixels, and what its labels are made from.

    Attributes:
        seen, covered: pixels that show it, and pixels that show objects in front of it, (size, size).
        outline: the whole outline, (points, 2), in pixels from the upper left corner; parts may be outside.
    """

    label: int
    x: int
    y: int
    w: int
    h: int
    seen: NDArray[np.bool_]
    covered: NDArray[np.bool_]
    outline: Points


def draw_image(
    rng: np.random.Generator,
    size: int,
    classes: int = len(CLASSES),
    objects: int = MOST_OBJECTS,
    smallest: float = SMALLEST,
    only: int | None = None,
) -> tuple[Image, list[Box]]:
    """Draw one image, (size, size, 3) in BGR, and its 1 to ``objects`` boxes.

    Args:
        rng: all randomness.
        size: pixels a side.
        classes: the first so many of `CLASSES`.
        objects: the most objects.
        smallest: larger side of the smallest object, in image sides.
        only: class of all objects; left out, each has a class of its own.
    """
    image = _background(rng, size)
    _distractors(rng, image)
    owner = np.zeros((size, size), np.uint8)  # number of the object seen at each pixel
    areas = [0]
    placed: list[tuple[int, Points]] = []
    for _ in range(rng.integers(1, objects + 1)):
        label = int(rng.integers(classes)) if only is None else only
        if outlines := _place(rng, label, image, owner, areas, smallest):
            placed.append((label, outlines[0]))
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (3, 3), float(rng.uniform(0.4, 0.9))).astype(np.uint8)
    strength = int(rng.integers(1, 7))
    noise = rng.integers(-strength, strength, (size, size, 1), np.int16, endpoint=True)
    image = np.asarray(np.clip(image + noise, 0, 255), np.uint8)
    boxes = []
    for number, (label, outline) in enumerate(placed, start=1):
        seen = owner == number
        x, y, w, h = cv2.boundingRect(seen.astype(np.uint8))
        boxes.append(Box(label, x, y, w, h, seen, owner > number, outline))
    return image, boxes


def _place(
    rng: np.random.Generator,
    label: int,
    image: Image,
    owner: Image,
    areas: list[int],
    smallest: float,
) -> list[Points]:
    """Draw an object at a place where enough of every object stays visible; return its outlines in pixels.

    They are none if no place is found.

    ``areas``: pixels of each object drawn so far if nothing covered it; [0] is the background's.
    """
    size = len(owner)
    side = size * rng.uniform(smallest, LARGEST)
    contours = _contours(rng, label, side)
    patch = math.ceil(side) + 4
    alpha = np.zeros((patch, patch), np.uint8)
    cv2.fillPoly(alpha, contours, 255, cv2.LINE_AA, _SHIFT)
    solid = alpha > 127
    area = int(solid.sum())
    for _ in range(_TRIES):
        left, top = rng.integers(-patch // 4, size - patch + patch // 4, 2, endpoint=True)
        rows = slice(max(top, 0), min(top + patch, size))
        columns = slice(max(left, 0), min(left + patch, size))
        within = (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )
        after = owner.copy()
        after[rows, columns][solid[within]] = len(areas)
        seen = np.bincount(after.ravel(), minlength=len(areas) + 1)[1:]
        if np.all(seen >= MIN_VISIBLE * np.array([*areas[1:], area])):
            break
    else:
        return []
    covered = image[rows, columns]
    paint = _paint(rng, patch, covered[solid[within]].mean(axis=0), contours)[within]
    weight = alpha[within][..., None].astype(np.int32)
    covered[:] = (covered * (255 - weight) + paint * weight + 127) // 255
    owner[:] = after
    areas.append(area)
    # OpenCV's coordinates are those of pixel centres
    return [contour / 2**_SHIFT + [left + 0.5, top + 0.5] for contour in contours]


def _contours(rng: np.random.Generator, label: int, side: float) -> list[NDArray[np.int32]]:
    """The class's outlines, turned at random, in 1/16 pixels of a patch with 2 pixels of margin."""
    angle, flatness = rng.uniform(0, 2 * math.pi), rng.uniform(0.8, 1.0)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    outlines = [outline * [1, flatness] @ turn for outline in _OUTLINES[CLASSES[label]](rng)]
    low, high = outlines[0].min(axis=0), outlines[0].max(axis=0)
    scale = side / (high - low).max()
    centre = (low + high) / 2
    middle = (math.ceil(side) + 4) / 2
    return [
        np.rint(((outline - centre) * scale + middle) * 2**_SHIFT).astype(np.int32)
        for outline in outlines
    ]


def _polygon(corners: int, radius: float = 1.0) -> Points:
    angles = np.arange(corners) * (2 * math.pi / corners)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star(rng: np.random.Generator) -> list[Points]:
    points = _polygon(10)
    points[1::2] *= rng.uniform(0.38, 0.5)
    return [points]


def _cross(rng: np.random.Generator) -> list[Points]:
    a = rng.uniform(0.25, 0.36)
    quarter = np.array([[a, a], [a, 1], [-a, 1]])
    back = np.array([[0, 1], [-1, 0]])
    return [np.concatenate([quarter @ np.linalg.matrix_power(back, k) for k in range(4)])]


_OUTLINES: dict[str, Callable[[np.random.Generator], list[Points]]] = {
    "disk": lambda rng: [_polygon(64)],
    "square": lambda rng: [_polygon(4)],
    "triangle": lambda rng: [_polygon(3)],
    "star": _star,
    "ring": lambda rng: [_polygon(64), _polygon(64, rng.uniform(0.45, 0.68))],
    "cross": _cross,
}


def _ramp(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Position of every pixel along a random direction, (size, size), in pixels."""
    angle = rng.uniform(0, 2 * math.pi)
    along = np.arange(size) - size / 2
    return along[:, None] * math.sin(angle) + along * math.cos(angle)


def _background(rng: np.random.Generator, size: int) -> Image:
    ramp = _ramp(rng, size)[..., None] / (1.5 * size) + 0.5
    first, second = rng.uniform(30, 225, (2, 3))
    picture = first + (second - first) * ramp
    for cells in (3, 8, 24):
        coarse = rng.integers(0, 256, (cells, cells, 3), np.uint8)
        # OpenCV promises the same bits everywhere for this interpolation only.
        smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR_EXACT)
        picture += (smooth - 127.5) * rng.uniform(0.03, 0.25)
    if rng.random() < 0.4:
        width = rng.uniform(0.02, 0.12) * size
        picture += ((_ramp(rng, size) // width % 2) * rng.uniform(-35, 35))[..., None]
    return np.asarray(np.clip(picture, 0, 255), np.uint8)


def _distractors(rng: np.random.Generator, image: Image) -> None:
    """Draw unlabelled distractors of no class behind the objects: lines, zigzags and long blobs."""
    size = len(image)
    for _ in range(rng.integers(0, 7)):
        colour = rng.integers(0, 256, 3).tolist()
        place = rng.integers(0, size, 2)
        match rng.integers(3):
            case 0:
                thickness = int(rng.integers(1, 1 + max(2, size // 40)))
                end = rng.integers(0, size, 2)
                cv2.line(image, place.tolist(), end.tolist(), colour, thickness, cv2.LINE_AA)
            case 1:
                steps = rng.integers(-size // 8, size // 8, (5, 2), np.int32)
                bends = (place + steps.cumsum(axis=0)).astype(np.int32)
                cv2.polylines(image, [bends], False, colour, 1, cv2.LINE_AA)
            case _:
                length = int(rng.integers(size // 16, size // 5))
                width = max(1, int(length * rng.uniform(0.15, 0.35)))
                turn = float(rng.integers(180))
                cv2.ellipse(
                    image, place.tolist(), (length, width), turn, 0, 360, colour, -1, cv2.LINE_AA
                )


def _paint(
    rng: np.random.Generator, patch: int, behind: Points, contours: list[NDArray[np.int32]]
) -> Image:
    """Colours of an object, (patch, patch, 3), independent of its class and distinct from ``behind``."""
    first, second, edge = (_colour(rng, behind) for _ in range(3))
    match rng.integers(3):
        case 0:
            share = np.zeros((patch, patch))
        case 1:
            share = np.clip(_ramp(rng, patch) / patch + 0.5, 0, 1)
        case _:
            share = _ramp(rng, patch) // max(2.0, patch * rng.uniform(0.08, 0.25)) % 2
    paint = np.rint(first + (second - first) * share[..., None]).astype(np.uint8)
    if rng.random() < 0.4:
        # Half of the line falls outside the shape, where it is not shown.
        thickness = 2 * int(rng.integers(1, 1 + max(1, patch // 24)))
        cv2.polylines(paint, contours, True, edge.tolist(), thickness, cv2.LINE_AA, _SHIFT)
    return paint


def _colour(rng: np.random.Generator, behind: Points) -> Points:
    candidates = rng.integers(0, 256, (8, 3)).astype(np.float64)
    distance = np.sqrt(((candidates - behind) ** 2).sum(axis=1))
    distinct = distance >= _CONTRAST
    chosen: Points = candidates[distinct.argmax() if distinct.any() else distance.argmax()]
    return chosen
