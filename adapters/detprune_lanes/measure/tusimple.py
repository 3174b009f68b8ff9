"""TuSimple's lane metric: accuracy, false positives and false negatives, frame by frame, from arrays.

The benchmark is https://github.com/TuSimple/tusimple-benchmark; the rules are those of the script that
lane papers run, ``evaluation/tusimple/lane.py`` of Ultra-Fast-Lane-Detection. A lane is given by its x
in fixed rows of the frame, in pixels; any negative x means that it is not seen in that row.

- Two lanes agree in a row if they are less than 20 / cos θ pixels apart, where θ is the angle of the
  least-squares line x(y) through the labelled lane, 0 if that has fewer than two points. They also
  agree where neither is seen: a lane that is not seen stands at x = -100.
- A labelled lane's accuracy is the largest share of rows in which one predicted lane agrees with it,
  and below 0.85 the lane is missed. One predicted lane may serve several labelled ones.
- A frame with more than two lanes too many, or over 200 ms, scores accuracy 0, FP 0 and FN 1.
- With more than four labelled lanes one miss is forgiven and the worst lane left out.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detprune.errors import InputError

Lanes = NDArray[np.float64] | Sequence[NDArray[np.float64]]
"""The lanes of one frame, (lanes, rows): x in pixels, negative where a lane is not seen."""

_REACH = 20.0  # pixels, across the lane
_MATCH = 0.85
_UNSEEN = -100.0
_SLOWEST = 200.0  # ms
_COUNTED = 4
_SURPLUS = 2
_DOUBT = 1e-9  # relative; the closed form of the slope errs by some 1e-15


@dataclass(frozen=True, eq=False)
class FrameScores:
    """Scores of every frame, (frames,) each; ``fp`` and ``fn`` are shares of lanes."""

    accuracy: NDArray[np.float64]
    fp: NDArray[np.float64]
    fn: NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Means over the frames, as fractions.

    Attributes:
        accuracy: TuSimple's score.
        fp: false positives per predicted lane. Below 0 where one lane serves several labelled ones.
        fn: missed lanes per labelled lane, of at most four.
        f1: 2PR / (P + R) with P = 1 - fp and R = 1 - fn, 0 where one of these is not positive.
            TuSimple defines none. This is what Ultra-Fast-Lane-Detection v2 prints
            (``evaluation/tusimple/lane2.py``); CLRNet (``clrnet/utils/tusimple_metric.py``) has
            the same P, but R = P / (P + fn).
        frames: scores of every frame.
    """

    accuracy: float
    fp: float
    fn: float
    f1: float
    frames: FrameScores = field(compare=False, repr=False)


def score(
    predictions: Sequence[Lanes] | NDArray[np.float64],
    ground_truth: Sequence[Lanes] | NDArray[np.float64],
    rows: Sequence[NDArray[np.float64]] | NDArray[np.float64],
    run_times: ArrayLike | None = None,
) -> Scores:
    """Score the lanes found in frames.

    Every lane counts, also one that is seen in no row. Ultra-Fast-Lane-Detection submits all of its four
    slots, and so do we: published FP of it have empty slots in them. With all lanes of
    TuSimple's test frames found it would be 0.155.

    Args:
        predictions: lanes found, for every frame or as an array (frames, lanes, rows).
        ground_truth: lanes labelled, in the same way.
        rows: y of the rows in pixels, for every frame, or one array (rows,) for all.
        run_times: milliseconds for every frame; without it, none is slow.

    Raises:
        InputError: no frames, or sizes that do not fit.
    """
    number = len(predictions)
    if isinstance(rows, np.ndarray) and rows.ndim == 1:
        rows = [rows] * number
    times = np.zeros(number) if run_times is None else np.asarray(run_times, dtype=np.float64)
    if not number or not len(ground_truth) == len(rows) == number or times.shape != (number,):
        raise InputError(
            f"lanes found in {number} frames, lanes labelled in {len(ground_truth)}, rows of "
            f"{len(rows)} and run times of shape {times.shape}; give the same number of each, "
            "at least one"
        )
    scores = np.tile([0.0, 0.0, 1.0], (number, 1))
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    found, given, heights = [], [], []
    for i in range(number):
        heights.append(np.asarray(rows[i], dtype=np.float64))
        found.append(_lanes(predictions[i], heights[i], f"lanes found in frame {i}"))
        given.append(_lanes(ground_truth[i], heights[i], f"lanes labelled in frame {i}"))
        if not hopeless(len(found[i]), len(given[i]), times[i]):
            alike[len(found[i]), *given[i].shape].append(i)
    for group in alike.values():
        best = _best(*(np.stack([of[i] for i in group]) for of in (found, given, heights)))
        scores[group] = _rates(best, predicted=len(found[group[0]]))
    return average(FrameScores(*np.ascontiguousarray(scores.T)), number)


def hopeless(predicted: int, labelled: int, run_time: float) -> bool:
    """Whether a frame gets the worst score for its number of lanes or its time in milliseconds."""
    return run_time > _SLOWEST or predicted > labelled + _SURPLUS


def average(frames: FrameScores, number: int) -> Scores:
    """The sums over the frames, divided by ``number``, and F1."""
    accuracy, fp, fn = (
        float(each.sum()) / number for each in (frames.accuracy, frames.fp, frames.fn)
    )
    precision, recall = 1 - fp, 1 - fn
    f1 = 0.0
    if precision > 0 and recall > 0:
        f1 = 2 * precision * recall / (precision + recall)
    return Scores(accuracy, fp, fn, f1, frames)


def _lanes(lanes: Lanes, heights: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    sizes = {np.shape(lane) for lane in lanes}
    if heights.ndim != 1 or not heights.size or not sizes <= {heights.shape}:
        raise InputError(
            f"{where}: an x for {' or '.join(map(str, sorted(sizes))) or 'no'} rows, and y for "
            f"{heights.shape}; each lane has one x for every row, and there is a row"
        )
    return np.asarray(lanes, dtype=np.float64).reshape(len(lanes), heights.size)


def _best(
    found: NDArray[np.float64], given: NDArray[np.float64], heights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Accuracy of every labelled lane, (frames, labelled).

    Shapes: (frames, found, rows), (frames, labelled, rows) and (frames, rows).
    """
    x = np.where(given >= 0, given, _UNSEEN)
    slopes = _slopes(x, heights)
    best = np.zeros(slopes.shape)
    for lane in range(found.shape[1]):
        other = found[:, lane, np.newaxis]
        apart = np.abs(np.where(other >= 0, other, _UNSEEN) - x)
        reach = _reach(slopes)
        # where rounding decides, use the least squares of the original
        doubtful = np.abs(apart - reach) < _DOUBT * reach
        for frame, label in np.argwhere(doubtful.any(axis=-1)):
            slopes[frame, label] = _slope(x[frame, label], heights[frame])
        agreed = np.count_nonzero(apart < _reach(slopes), axis=-1)
        best = np.maximum(best, agreed / x.shape[-1])
    return best


def _reach(slopes: NDArray[np.float64]) -> NDArray[np.float64]:
    return (_REACH / np.cos(np.arctan(slopes)))[..., np.newaxis]


def _slopes(x: NDArray[np.float64], heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slopes dx/dy of least-squares lines through the points with x >= 0, 0 for a single point."""
    points = x >= 0
    number = np.maximum(points.sum(axis=-1, keepdims=True), 1)
    y = np.where(points, heights[:, np.newaxis], 0.0)
    x = np.where(points, x, 0.0)
    y = np.where(points, y - y.sum(axis=-1, keepdims=True) / number, 0.0)
    x = np.where(points, x - x.sum(axis=-1, keepdims=True) / number, 0.0)
    spread = (y * y).sum(axis=-1)
    slopes: NDArray[np.float64] = (x * y).sum(axis=-1) / np.where(spread > 0, spread, 1.0)
    return slopes


def _slope(x: NDArray[np.float64], heights: NDArray[np.float64]) -> float:
    """The slope of one lane by LAPACK's gelsd, equal to scikit-learn's to the last bit.

    The distances are whole pixels in practice, and so is the threshold for the slopes 0.75, 1.05, 2.4
    and 4.95. Of 23,739 real labels 17 have such a slope, and the closed form is on the other side
    of the whole number in 4 of them; gelsd in none.
    """
    points = x >= 0
    x, y = x[points], heights[points]
    slope: float = np.linalg.lstsq((y - y.mean())[:, np.newaxis], x - x.mean(), rcond=None)[0][0]
    return slope


def _rates(best: NDArray[np.float64], predicted: int) -> NDArray[np.float64]:
    """Accuracy, FP and FN of every frame, (frames, 3), from (frames, labelled)."""
    labelled = best.shape[1]
    total = best.sum(axis=1)
    missed = np.count_nonzero(best < _MATCH, axis=1)
    surplus = predicted - (labelled - missed)
    if labelled > _COUNTED:
        total -= best.min(axis=1)
        missed -= missed > 0
    most = max(min(labelled, _COUNTED), 1)
    return np.stack([total / most, surplus / max(predicted, 1), missed / most], axis=1)
