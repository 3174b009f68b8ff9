"""TuSimple's rules as plain loops over lanes and rows, and frames to try them on."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Lane = Sequence[float]


class Frame(NamedTuple):
    found: list[Lane]
    labelled: list[Lane]
    heights: list[float]
    run_time: float


def place(x: float) -> float:
    """Where a lane stands in a row; one that is not seen stands far outside, for both sides."""
    return x if x >= 0 else -100.0


def reach(lane: Lane, heights: Sequence[float]) -> float:
    """Pixels within which a point of the labelled lane counts as found."""
    points = [(y, x) for y, x in zip(heights, lane, strict=True) if x >= 0]
    if len(points) < 2:
        return 20.0
    slope = statistics.linear_regression(*zip(*points, strict=True)).slope
    return 20.0 / math.cos(math.atan(slope))


def agreement(found: Lane, labelled: Lane, heights: Sequence[float]) -> float:
    """Share of the rows in which a found lane is near enough to a labelled one."""
    near = 0
    for a, b in zip(found, labelled, strict=True):
        if abs(place(a) - place(b)) < reach(labelled, heights):
            near += 1
    return near / len(heights)


def frame_score(frame: Frame) -> tuple[float, float, float]:
    """Accuracy, false positives and false negatives of one frame."""
    found, labelled, heights, run_time = frame
    if run_time > 200 or len(found) > len(labelled) + 2:
        return 0.0, 0.0, 1.0
    accuracies = []
    for lane in labelled:
        accuracy = 0.0
        for other in found:
            accuracy = max(accuracy, agreement(other, lane, heights))
        accuracies.append(accuracy)
    hits = sum(accuracy >= 0.85 for accuracy in accuracies)
    misses = len(labelled) - hits
    false_positives = (len(found) - hits) / len(found) if found else 0.0
    if len(labelled) > 4:
        accuracies.remove(min(accuracies))
        if misses > 0:
            misses -= 1
    if not labelled:
        return 0.0, false_positives, 0.0
    counted = min(len(labelled), 4)
    return sum(accuracies) / counted, false_positives, misses / counted


def drawn_frame(rng: np.random.Generator) -> Frame:
    """A frame with any number of lanes: whole ones, single points, none at all, and near copies."""
    size = int(rng.choice([1, 2, 7, 20, 56]))
    heights = 160.0 + 10.0 * np.arange(size)
    labelled = [_drawn_lane(rng, heights) for _ in range(rng.integers(0, 7))]
    found = []
    for _ in range(rng.integers(0, min(len(labelled) + 4, 8))):
        lane = _drawn_lane(rng, heights)
        if labelled and rng.random() < 0.8:
            copied = labelled[rng.integers(len(labelled))]
            lane = np.where(copied >= 0, copied + rng.normal(rng.choice([0, 15, 25]), 4), copied)
        lane = np.where(rng.random(size) < rng.choice([0.0, 0.1]), -2.0, lane)
        lane[rng.random(size) < 0.02] = np.nan
        found.append(lane)
    return Frame(found, labelled, heights.tolist(), float(rng.choice([1.0, 200.0, 200.5])))


def _drawn_lane(rng: np.random.Generator, heights: NDArray[np.float64]) -> NDArray[np.float64]:
    x = rng.uniform(0, 1280) + rng.uniform(-6, 6) * (heights - heights.mean())
    x += rng.normal(0, 3, heights.size)
    kind = rng.integers(5)
    if kind == 0:
        x[:] = rng.choice([-2.0, -1000.0, -0.5])
    elif kind == 1:
        x[np.arange(heights.size) != rng.integers(heights.size)] = -2.0
    elif kind == 2:
        x[: rng.integers(heights.size)] = -2.0
    return np.where(x < 1280, x, -2.0)
