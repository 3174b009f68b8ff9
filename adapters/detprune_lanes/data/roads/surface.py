"""The road's surface, without paint: where it ends, its tone, stains, joints, patches and cracks."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

from detprune_lanes.data.roads.canvas import Image, clouds, fixed, line, mix
from detprune_lanes.data.roads.plane import LENGTH, WIDTH, Plane
from detprune_lanes.data.roads.style import Style
from detprune_lanes.data.roads.view import Rows, View, at

_SHARP_TO = 60.0  # metres: farther away, details finer than the frame's pixels would flicker


@dataclass(frozen=True)
class Edges:
    """The edges of the paved surface: x in every row, (REACH,) each."""

    left: Rows
    right: Rows
    spare_left: bool
    spare_right: bool

    def at(self, side: int, row: ArrayLike) -> Rows:
        """x of the left (-1) or right (1) edge in a row."""
        return at(self.left if side < 0 else self.right, row)

    def laterals(self, view: View) -> tuple[float, float]:
        """Lateral positions of both edges, at a middle distance; at least a lane apart."""
        row = view.horizon + 120
        scale = float(view.scale(row))
        left, right = (float(self.at(side, row) - view.x(0, row)) / scale for side in (-1, 1))
        return left, max(right, left + 1)


def edges_of(rng: np.random.Generator, view: View) -> Edges:
    """Choose the widths of the shoulders.

    A side of the road with both labels that a detector looks for may have one more, unlabelled lane:
    annotators stop there too.
    """
    rows = np.arange(len(view.centre))
    scale = view.scale(rows)
    left, right = (
        (view.lanes[0], view.lanes[-1])
        if len(view.lanes)
        else (view.x(-0.5, rows), view.x(0.5, rows))
    )
    bottom = view.lanes[:, 719] if len(view.lanes) else np.empty(0)
    spare = [(bottom < 640).sum() >= 2, (bottom > 640).sum() >= 2]
    shoulders = []
    for side in (0, 1):
        spare[side] = bool(spare[side]) and rng.random() < 0.12
        lacking = len(view.lanes) == 1 and (bottom[0] > 640) == (side == 0)
        shoulders.append(
            rng.uniform(0.15, 0.8) + rng.uniform(0, 0.4) * side + 1.0 * spare[side] + 1.0 * lacking
        )
    return Edges(left - shoulders[0] * scale, right + shoulders[1] * scale, spare[0], spare[1])


def surface(rng: np.random.Generator, plane: Plane, view: View, style: Style) -> Image:
    """Draw the surface from above, (LENGTH, WIDTH): grey levels around 128."""
    contrast = rng.uniform(0.1, 0.35)
    picture = clouds(rng, (LENGTH, WIDTH), ((7, 5), (20, 14), (70, 60)))
    tone = picture.astype(np.float32) * contrast + 128 * (1 - contrast)
    tone += _across(rng, plane, view, style)[None]
    picture = np.asarray(np.clip(tone, 0, 255), np.uint8)
    for _ in range(rng.integers(1, 4) if rng.random() < style.patches else 0):
        _patch(rng, picture, plane)
    if rng.random() < style.slabs:
        _joints(rng, picture, plane, view)
    for _ in range(rng.integers(1, 4) if rng.random() < style.seams else 0):
        _along(rng, picture, plane, int(rng.integers(60, 105)), int(rng.integers(1, 4)))
    for _ in range(rng.integers(0, 4)):
        _crack(rng, picture, plane)
    if rng.random() < 0.25:  # tyre marks of someone who braked
        _along(
            rng, picture, plane, int(rng.integers(80, 112)), 4, length=rng.uniform(8, 40), pair=0.45
        )
    return picture


def _across(rng: np.random.Generator, plane: Plane, view: View, style: Style) -> Rows:
    """The part that depends on the lateral position alone, (WIDTH,): lanes' tones, wheel tracks, oil, grooves."""
    lateral = plane.laterals()
    bounds = view.laterals if len(view.laterals) else np.array([0.0])
    tones = rng.normal(0, 7, len(bounds) + 1)
    tones[[0, -1]] += rng.normal(-8, 12, 2)  # shoulders
    profile: Rows = tones[np.searchsorted(np.sort(bounds), lateral)]
    stained = rng.random() < style.stains
    for left in np.sort(bounds) if stained else ():
        middle = left + 0.5
        profile -= rng.uniform(0, 16) * np.exp(-(((lateral - middle) / 0.12) ** 2))
        for track in (-0.23, 0.23):
            strength = rng.uniform(-6, 12)
            profile -= strength * np.exp(-(((lateral - middle - track) / 0.08) ** 2))
    if rng.random() < style.grooves:
        profile += rng.normal(0, rng.uniform(3, 8), WIDTH)
    return profile.astype(np.float32)


def _patch(rng: np.random.Generator, picture: Image, plane: Plane) -> None:
    near = np.exp(rng.uniform(np.log(4), np.log(50)))
    left = rng.uniform(plane.left, plane.right - 0.5)
    depths = np.array([near, near, near * rng.uniform(1.1, 2.2)]).repeat([1, 1, 2])
    laterals = left + np.array([0, 1, 1, 0]) * rng.uniform(0.2, 1.2)
    corners = np.stack([plane.columns(laterals), plane.rows(depths)], axis=1)
    area = np.zeros_like(picture)
    cv2.fillPoly(area, [fixed(corners)], 255, cv2.LINE_8, 4)
    change = rng.choice([-1, 1], p=[0.7, 0.3]) * rng.uniform(10, 30)
    picture[area > 0] = np.clip(picture[area > 0] + change, 0, 255)


def _joints(rng: np.random.Generator, picture: Image, plane: Plane, view: View) -> None:
    """Concrete slabs: joints across the road and along the boundaries, a little beside the paint."""
    dark = int(rng.integers(70, 110))
    first, spacing = rng.uniform(0, 4.6), rng.choice([3.7, 4.6, 6.0])
    faint = picture.copy()
    for depth in np.arange(first + 3, _SHARP_TO, spacing):
        row = float(plane.rows(depth))
        line(faint, [(0, row), (WIDTH, row)], dark)
    picture[:] = mix(picture, faint, float(rng.uniform(0.2, 0.7)))
    beside = rng.uniform(0.03, 0.12) * rng.choice([-1, 1])
    for lateral in view.laterals:
        column = float(plane.columns(lateral + beside))
        line(picture, [(column, 0), (column, LENGTH)], dark, int(rng.integers(1, 3)))


def _along(
    rng: np.random.Generator,
    picture: Image,
    plane: Plane,
    tone: int,
    thickness: int,
    length: float = 200.0,
    pair: float | None = None,
) -> None:
    """A wandering line along the road, or two of them ``pair`` lane widths apart."""
    near = 3.0 if length >= 200 else rng.uniform(4, 40)
    depths = np.geomspace(near, near + length, 12)
    lateral = rng.uniform(plane.left, plane.right) + rng.normal(0, 0.02, 12).cumsum()
    for offset in (0.0,) if pair is None else (0.0, pair):
        points = np.stack([plane.columns(lateral + offset), plane.rows(depths)], axis=1)
        line(picture, points, tone, thickness)


def _crack(rng: np.random.Generator, picture: Image, plane: Plane) -> None:
    steps = int(rng.integers(8, 24))
    depth = rng.uniform(4, 25) * np.exp(np.abs(rng.normal(0, 0.03, steps)).cumsum())
    lateral = rng.uniform(plane.left, plane.right) + rng.normal(0, 0.04, steps).cumsum()
    points = np.stack([plane.columns(lateral), plane.rows(depth)], axis=1)
    line(picture, points, int(rng.integers(60, 100)))
