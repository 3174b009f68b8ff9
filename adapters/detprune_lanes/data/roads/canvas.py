"""Small tools for drawing: noise, tints, polygons with subpixel coordinates."""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from detprune_lanes.grid import FRAME_WIDTH

Image = NDArray[np.uint8]

_SHIFT = 4  # fractional bits of OpenCV's coordinates
_FAR = 20_000  # pixels: nothing is drawn farther outside


def fixed(points: ArrayLike) -> NDArray[np.int32]:
    """Points (N, 2) in OpenCV's sixteenths of a pixel."""
    clipped = np.clip(np.asarray(points, np.float64), -_FAR, _FAR)
    rounded: NDArray[np.int32] = np.rint(clipped * 2**_SHIFT).astype(np.int32)
    return rounded


def fill(image: Image, points: ArrayLike, colour: object) -> None:
    """Fill a polygon, (N, 2), with smooth edges."""
    cv2.fillPoly(image, [fixed(points)], scalar(colour), cv2.LINE_AA, _SHIFT)


def line(image: Image, points: ArrayLike, colour: object, thickness: int = 1) -> None:
    """Draw an open line through points, (N, 2)."""
    cv2.polylines(image, [fixed(points)], False, scalar(colour), thickness, cv2.LINE_AA, _SHIFT)


def rectangle(image: Image, x: float, y: float, w: float, h: float, colour: object) -> None:
    """Fill an upright rectangle of which (x, y) is the upper left corner."""
    fill(image, [(x, y), (x + w, y), (x + w, y + h), (x, y + h)], colour)


def scalar(colour: object) -> tuple[float, ...]:
    """A colour in OpenCV's form."""
    return tuple(np.clip(np.atleast_1d(np.asarray(colour, np.float64)), 0, 255).tolist())


def ribbon(left: ArrayLike, right: ArrayLike, rows: ArrayLike) -> NDArray[np.float64]:
    """The polygon between two curves x(row), (2 · R, 2)."""
    left, right, rows = np.asarray(left), np.asarray(right), np.asarray(rows)
    down, up = np.stack([left, rows], axis=1), np.stack([right, rows], axis=1)[::-1]
    return np.concatenate([down, up])


def clouds(
    rng: np.random.Generator, shape: tuple[int, int], cells: tuple[tuple[int, int], ...]
) -> NDArray[np.uint8]:
    """Smooth noise around 128: one octave per pair of cells down and across, ever weaker."""
    total = np.zeros(shape, np.uint8)
    weight = 1.0
    for number, (down, across) in enumerate(cells):
        coarse = rng.integers(0, 256, (down, across), np.uint8)
        octave = as_image(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_LINEAR))
        share = 1.0 if number == 0 else weight / (1 + weight)
        total = mix(total, octave, share)
        weight = share * 0.7
    return total


def mix(first: Image, second: Image, share: float) -> Image:
    """first · (1 - share) + second · share."""
    return as_image(cv2.addWeighted(first, 1 - share, second, share, 0))


def grain(rng: np.random.Generator, height: int) -> Image:
    """Fine noise around 128 with a standard deviation of 32, (height, FRAME_WIDTH)."""
    tile = np.clip(rng.standard_normal((180, 480), np.float32) * 32 + 128, 0, 255)
    rows, columns = -(-height // 180), -(-FRAME_WIDTH // 480)
    return np.tile(tile.astype(np.uint8), (rows, columns))[:height, :FRAME_WIDTH]


def grained(image: Image, noise: Image, strength: float) -> Image:
    """An image, grey or coloured, with `grain` of that standard deviation added."""
    share = strength / 32
    noise = noise if image.ndim == 2 else as_image(cv2.merge([noise, noise, noise]))
    return as_image(cv2.addWeighted(image, 1, noise, share, -128 * share))


def tinted(grey: Image, colour: ArrayLike) -> Image:
    """A grey picture, (H, W), tinted so that grey 128 becomes ``colour``, (H, W, 3)."""
    ramp = np.arange(256)[:, None] / 128 * np.asarray(colour, np.float64)
    table = np.clip(np.rint(ramp), 0, 255).astype(np.uint8)
    return as_image(cv2.LUT(cv2.merge([grey, grey, grey]), table.reshape(1, 256, 3)))


def shaded(image: Image, shade: Image) -> Image:
    """An image, (H, W, 3), darkened to ``shade`` / 255, (H, W)."""
    return as_image(cv2.multiply(image, cv2.merge([shade, shade, shade]), scale=1 / 255))


def as_image(array: object) -> Image:
    """An array that OpenCV returned, typed as an image of bytes."""
    return np.asarray(array, np.uint8)


def vary(rng: np.random.Generator, colour: ArrayLike, much: float) -> NDArray[np.float64]:
    """A colour made lighter or darker at random, with a smaller random change of each channel."""
    changed = np.asarray(colour, np.float64) * rng.normal(1, much)
    return np.clip(changed + rng.normal(0, 12 * much, 3), 0, 255)
