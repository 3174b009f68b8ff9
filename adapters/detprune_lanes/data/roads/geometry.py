"""Lane boundaries of a random road, as a camera in a car sees them and as TuSimple labels them.

A pinhole camera looks along a road whose middle line bends sideways and up or down. At the distance z
in metres the road lies ``offset + heading · z + bend · z²/2 + change · z³/6`` to the right and
``slope · z²/2`` above the plane of the car; ``change`` is a clothoid's: curvature that grows linearly.
The ranges were chosen so that the numbers of lanes, the rows where they begin and end and their x
spread like those of TuSimple's labels.
"""

import numpy as np
from numpy.typing import NDArray

from detprune_lanes.grid import ABSENT, FRAME_WIDTH

LANE_WIDTH = 3.66
"""Metres between two lane boundaries of an American motorway (12 feet)."""

FOCAL = 1000.0
"""Focal length in pixels that is assumed for the camera of every frame."""

_ROWS = np.arange(160, 711, 10)
# boundaries left and right of the car → share of the frames
_COUNTS = {
    (2, 2): 0.46,
    (1, 2): 0.22,
    (2, 1): 0.165,
    (3, 2): 0.055,
    (2, 3): 0.035,
    (1, 3): 0.02,
    (3, 1): 0.015,
    (1, 1): 0.02,
    (1, 0): 0.005,
    (0, 1): 0.005,
}
_FEWEST_ROWS = 4  # a boundary seen in fewer rows is left out, as annotators do


def random_lanes(rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw a road and project its lane boundaries.

    Returns:
        The rows, (56,), y = 160 … 710, and the lanes, (1 to 5, 56), from left to right: whole x
        from 0 to 1279, or -2 above the first and below the last row where the boundary is seen.
    """
    while True:
        lanes = _project(rng)
        if len(lanes):
            return _ROWS.copy(), lanes


def _project(rng: np.random.Generator) -> NDArray[np.int64]:
    counts = list(_COUNTS)
    left, right = counts[rng.choice(len(counts), p=list(_COUNTS.values()))]
    width = LANE_WIDTH * rng.normal(1.0, 0.025)
    height = np.clip(rng.normal(1.65, 0.065), 1.45, 1.85)  # of the camera above the road, in metres
    horizon = np.clip(rng.normal(238.0, 8.5), 205, 268)
    middle = 655 + rng.normal(0, 9)
    heading = rng.normal(0, 0.012)
    gentle = rng.random() < 0.4
    bend = rng.normal(0, 0.0002 if gentle else 0.0024)
    change = rng.normal(0, 0.000003 if gentle else 0.00002)
    slope = rng.normal(0, 0.00027)
    own = width * np.clip(rng.normal(-0.027, 0.08), -0.25, 0.25)  # the car's place in its lane

    # From far to near, so that the rows rise; a crest hides what lies behind its own row.
    z = np.geomspace(200, 1.5, 400)
    y = horizon + FOCAL * (height / z - slope * z / 2)
    beyond = np.flatnonzero(np.diff(y) <= 0)
    if len(beyond):
        z, y = z[beyond[-1] + 1 :], y[beyond[-1] + 1 :]
    road = heading * z + bend * z**2 / 2 + change * z**3 / 6
    seen_from = np.clip(rng.lognormal(np.log(82), 0.33), 30, 150)  # metres: where labels begin

    lanes = []
    for number in range(-left, right):
        sideways = (number + 0.5) * width - own
        if number not in (-1, 0):
            sideways += rng.normal(0, 0.05) * width
            if rng.random() < 0.08:  # a ramp that leaves or joins
                sideways = sideways + rng.uniform(-0.015, 0.025) * np.sign(number) * z
        x = middle + FOCAL * (road + sideways) / z
        first = y[np.searchsorted(-z, -seen_from * rng.choice([1, 0.85, 0.65], p=[0.6, 0.3, 0.1]))]
        lane = np.rint(np.interp(_ROWS, y, x)).astype(np.int64)
        edge = rng.integers(0, 45) if rng.random() < 0.7 else 0
        last = _ROWS[-1] if rng.random() < 0.85 else rng.integers(640, 711)
        seen = (max(first, y[0]) <= _ROWS) & (last >= _ROWS)
        seen &= (lane >= edge) & (lane < FRAME_WIDTH - edge)
        seen &= _longest_run(seen)
        if seen.sum() >= _FEWEST_ROWS:
            lanes.append(np.where(seen, lane, ABSENT))
    return np.array(lanes, np.int64).reshape(-1, len(_ROWS))


def _longest_run(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask with only its longest stretch of True; of several, the first."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    kept = np.zeros_like(mask)
    if len(edges):
        starts, ends = edges[::2], edges[1::2]
        k = int(np.argmax(ends - starts))
        kept[starts[k] : ends[k]] = True
    return kept
