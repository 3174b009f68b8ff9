"""The perspective of a frame, recovered from its lane boundaries alone.

On a flat road the gap between two boundaries grows linearly with the rows below the horizon, however
the road bends sideways. So the row where the gaps vanish is the horizon, and the gap in a row is the
scale, in pixels per lane width, of everything that stands on the road there.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detprune_lanes.data.roads.geometry import FOCAL, LANE_WIDTH
from detprune_lanes.grid import FRAME_HEIGHT

REACH = 1200
"""Rows that a view knows; those below the frame let a near vehicle stand partly in it."""

_USUAL_GROWTH = 2.2  # pixels per row: TuSimple's median, for frames with a single boundary
_USUAL_ABOVE = 25  # rows from the horizon to the first label
_HORIZONS = 60, 500  # rows: outside of these, labels are not those of a road ahead
_TAIL = 8  # labelled rows from which a boundary is continued downwards

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """The perspective of a frame: positions on the road as pixels, and back.

    Attributes:
        horizon: the row in which the boundaries meet.
        growth: pixels by which a lane's width grows per row.
        centre: (REACH,), x of lateral position 0 in every row.
        lanes: (L, REACH), x of each boundary in every row, from left to right, continued beyond its
            label up to the horizon and down.
        laterals: (L,), the boundaries' usual lateral positions.
        labels: (L,), number of each boundary in the lanes that were given.
    """

    horizon: float
    growth: float
    centre: Rows
    lanes: Rows
    laterals: Rows
    labels: tuple[int, ...]

    @property
    def top(self) -> int:
        """The first row in which the road is drawn."""
        return int(np.ceil(self.horizon)) + 1

    def scale(self, row: ArrayLike) -> Rows:
        """Pixels per lane width in a row, at least half a row's growth."""
        return self.growth * np.maximum(np.asarray(row, np.float64) - self.horizon, 0.5)

    def metre(self, row: ArrayLike) -> Rows:
        """Pixels per metre, sideways and upwards, of what stands on the road in a row."""
        return self.scale(row) / LANE_WIDTH

    def depth(self, row: ArrayLike) -> Rows:
        """Metres ahead of the camera at which the road is seen in a row."""
        return FOCAL * LANE_WIDTH / self.scale(row)

    def row(self, depth: ArrayLike) -> Rows:
        """The row in which the road is seen that many metres ahead."""
        return self.horizon + FOCAL * LANE_WIDTH / self.growth / np.asarray(depth, np.float64)

    def x(self, lateral: ArrayLike, row: ArrayLike) -> Rows:
        """x of a lateral position, in lane widths from the centre, in a row."""
        return at(self.centre, row) + np.asarray(lateral) * self.scale(row)

    @property
    def slots(self) -> list[tuple[int, int]]:
        """Pairs of neighbouring boundaries about a lane's width apart."""
        widths = np.diff(self.laterals)
        return [(k, k + 1) for k, width in enumerate(widths) if 0.6 < width < 1.6]


def at(curve: Rows, row: ArrayLike) -> Rows:
    """A curve's x, known for whole rows from 0, in rows between them."""
    return np.interp(np.asarray(row, np.float64), np.arange(len(curve)), curve)


def recover(lanes: NDArray[np.float64], rows: NDArray[np.float64]) -> View:
    """Find the perspective of a frame.

    Args:
        lanes: (L, R), x in pixels per row, negative where absent; L may be 0.
        rows: (R,), y in pixels, rising.
    """
    labels = [k for k, lane in enumerate(lanes) if (lane >= 0).sum() >= 2]
    labels.sort(key=lambda k: float(_down(lanes[k], rows, FRAME_HEIGHT)))
    known = lanes[labels] if labels else np.empty((0, len(rows)))
    horizon, growth = _meeting(known, rows)
    scale = growth * np.maximum(rows - horizon, 0.5)
    centre, laterals = _centre(known, rows, scale)
    every = np.arange(REACH)
    wide = growth * np.maximum(every - horizon, 0.5)
    if not len(known):
        centre = np.full(REACH, 650.0) - 0.5 * wide
    curves = np.empty((len(known), REACH))
    for curve, lane in zip(curves, known, strict=True):
        seen = np.flatnonzero(lane >= 0)
        curve[:] = np.interp(every, rows[seen], lane[seen])
        above, below = every < rows[seen[0]], every > rows[seen[-1]]
        offset = (lane[seen[0]] - at(centre, rows[seen[0]])) / scale[seen[0]]
        curve[above] = centre[above] + offset * wide[above]
        curve[below] = _down(lane, rows, every[below])
    return View(horizon, growth, centre, curves, laterals, tuple(labels))


def _slope(rows: Rows, x: Rows) -> float:
    """Slope of the least-squares line x(row)."""
    away = rows - rows.mean()
    return float((away * x).sum() / (away**2).sum())


def _down(lane: Rows, rows: Rows, row: ArrayLike) -> Rows:
    """x in lower rows: on the line through a label's last point with the slope of its last rows."""
    seen = np.flatnonzero(lane >= 0)[-_TAIL:]
    last = seen[-1]
    below: Rows = lane[last] + _slope(rows[seen], lane[seen]) * (np.asarray(row) - rows[last])
    return below


def _meeting(lanes: Rows, rows: Rows) -> tuple[float, float]:
    """The horizon's row, and the growth of a lane's width per row."""
    first = min((rows[lane >= 0][0] for lane in lanes), default=260.0)
    fits = []
    for left, right in pairwise(lanes):
        both = (left >= 0) & (right >= 0)
        if both.sum() >= 5:
            gaps = (right - left)[both]
            slope = _slope(rows[both], gaps)
            if 0.6 * _USUAL_GROWTH < slope < 1.6 * _USUAL_GROWTH:
                fits.append((rows[both].mean() - gaps.mean() / slope, slope))
    if not fits:
        fits = [(first - _USUAL_ABOVE, _USUAL_GROWTH)]
    horizon, growth = np.median(fits, axis=0)
    horizon = np.clip(horizon, first - 70, first - 4)
    return float(np.clip(horizon, *_HORIZONS)), float(growth)


def _centre(lanes: Rows, rows: Rows, scale: Rows) -> tuple[Rows, Rows]:
    """A line along the road, (REACH,), and every boundary's lateral position from it.

    The longest boundary gives its shape. The others lengthen it where they reach higher or lower,
    each at its own lateral position.
    """
    centre = np.full(len(rows), np.nan)
    laterals = np.zeros(len(lanes))
    for k in sorted(range(len(lanes)), key=lambda k: -int((lanes[k] >= 0).sum())):
        seen = lanes[k] >= 0
        common = seen & ~np.isnan(centre)
        if common.any():
            laterals[k] = np.median((lanes[k][common] - centre[common]) / scale[common])
        new = seen & np.isnan(centre)
        for part in (new & (rows < rows[seen].mean()), new & (rows >= rows[seen].mean())):
            if not part.any():
                continue
            # Continue the line where it is, not at its usual lateral position: it must not jump.
            nearest = np.argmin(np.where(common, np.abs(rows - rows[part].mean()), np.inf))
            lateral = (lanes[k][nearest] - centre[nearest]) / scale[nearest] if common.any() else 0
            centre[part] = lanes[k][part] - lateral * scale[part]
    known = np.flatnonzero(~np.isnan(centre))
    every = np.arange(REACH, dtype=np.float64)
    if len(known) < 2:
        return np.full(REACH, 650.0), laterals
    full = np.interp(every, rows[known], centre[known])
    head, tail = known[:4], known[-_TAIL:]
    for ends, outside in ((head, every < rows[known[0]]), (tail, every > rows[known[-1]])):
        slope = _slope(rows[ends], centre[ends])
        end = known[0] if ends is head else known[-1]
        full[outside] = centre[end] + slope * (every[outside] - rows[end])
    return full, laterals
