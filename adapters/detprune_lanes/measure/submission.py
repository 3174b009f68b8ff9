"""TuSimple's files: ground truth, submissions, and the score of one against the other.

One JSON object per line. The ground truth has ``raw_file``, ``lanes`` and ``h_samples``, a submission
``raw_file``, ``lanes`` and ``run_time`` in milliseconds; both may have more keys.

A submission is accepted or refused as by the benchmark's script (named in the header of ``tusimple``),
and scored the same: a frame that is submitted twice counts twice, sums are divided by the number of
different frames of the ground truth, NaN is an absent x, true is 1, and the values of a lane are not
checked where the lane is compared with nothing. Only these rules are stricter, deliberately:

- Text and objects are refused as lanes. The script takes an empty one for no lanes, and accepts one of the
  right length where it does not look inside.
- [x] is refused as a number. The script compares every row with every row if all x of a lane are such lists.
- The ground truth must be valid in all frames, also where the script does not look at it: an x for every
  row of each lane, rows that go down the frame, all in pixels of a frame of 1280x720, and a lane in at
  least one of the frames.
- A submission whose every x is at most 1 is refused, as one in fractions of the width.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detprune.errors import InputError, nearest
from detprune.files import check_regular
from detprune_lanes.data.units import IN_PIXELS, WITH_LANES, in_fractions, without_lanes
from detprune_lanes.grid import ABSENT, FRAME_HEIGHT, FRAME_WIDTH
from detprune_lanes.measure.tusimple import Scores, average, hopeless, score

_FAR = 1e300  # whole numbers in JSON may exceed the range of a float
_SHOWN = 60  # characters of a value in messages


@dataclass(frozen=True)
class Prediction:
    """A line of a submission; ``lanes`` and ``run_time`` are as in the file, and not yet checked."""

    raw_file: str
    lanes: Any
    run_time: Any
    place: str


@dataclass(frozen=True, eq=False)
class Truth:
    """A line of the ground truth: ``rows`` are y in pixels, (rows,), ``lanes`` x, (lanes, rows)."""

    raw_file: str
    lanes: NDArray[np.float64]
    rows: NDArray[np.float64]
    place: str


def evaluate_files(predictions: Path, annotations: Path) -> Scores:
    """Score a submission against a ground truth, such as TuSimple's ``test_label.json``.

    Raises:
        InputError: a file cannot be read, or the benchmark's script refuses the submission.
    """
    truth = read_ground_truth(annotations)
    submitted = read_submission(predictions, frames=len(truth))
    frames = {frame.raw_file: frame for frame in truth}
    for each in submitted:
        if each.raw_file not in frames:
            raise InputError(
                f"a raw_file that is no test frame: {each.place} has {_short(each.raw_file)}"
                f"{nearest(each.raw_file, frames)}; take the raw_file of {annotations}, one of "
                f"{len(frames)} like {truth[0].raw_file!r}"
            )
    matched = [frames[each.raw_file] for each in submitted]
    found = [_submitted(each, frame) for each, frame in zip(submitted, matched, strict=True)]
    if in_fractions(*(lanes.ravel() for lanes in found)):
        raise InputError(f"no x in {predictions} is beyond 1, as if in fractions; {IN_PIXELS}")
    times = [min(each.run_time, _FAR) for each in submitted]
    scores = score(
        found, [frame.lanes for frame in matched], [frame.rows for frame in matched], times
    )
    return average(scores.frames, len(frames))


def is_submission(path: Path) -> bool:
    """Whether the first line of a file is one of a submission, and not of a ground truth."""
    try:
        with path.open(encoding="utf-8") as file:
            first = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and "run_time" in first and "h_samples" not in first


def read_submission(path: Path, frames: int | None = None) -> list[Prediction]:
    """Read a submission; its lanes are checked when they are scored.

    Args:
        path: the file.
        frames: number of lines that it must have; without it, any.

    Raises:
        InputError: it cannot be read, has another number of lines, or a key is missing.
    """
    lines = _lines(path, "the predictions cannot be loaded")
    if frames is not None and len(lines) != frames:
        raise InputError(
            f"not the predictions of all frames: {path} has {len(lines)} lines, and the ground "
            f"truth {frames}; write one line for every frame, with lanes: [] where none is found"
        )
    submitted = []
    for place, content in lines:
        _keys(content, ("raw_file", "lanes", "run_time"), f"an incomplete prediction: {place}")
        raw_file = content["raw_file"]
        if not isinstance(raw_file, str):
            raise InputError(
                f"a raw_file that is no test frame: {place} has {_short(raw_file)}; it is a text, "
                "the raw_file of the ground truth"
            )
        submitted.append(Prediction(raw_file, content["lanes"], content["run_time"], place))
    return submitted


def read_ground_truth(path: Path) -> list[Truth]:
    """Read a ground truth, or training labels, which have the same form.

    Raises:
        InputError: it cannot be read, is empty, or a line is not a frame's.
    """
    lines = _lines(path, "the ground truth cannot be loaded")
    if not lines:
        raise InputError(f"the ground truth {path} is empty; give TuSimple's test_label.json")
    labels = [content for _, content in lines if isinstance(content, dict)]
    if len(labels) == len(lines) and (looks := without_lanes(labels)):
        raise InputError(f"the ground truth {path} has no lanes: {looks}; {WITH_LANES}")
    truth = []
    for place, content in lines:
        start = f"format of the ground truth: {place}"
        _keys(content, ("raw_file", "lanes", "h_samples"), start)
        raw_file, lanes, rows = content["raw_file"], content["lanes"], content["h_samples"]
        if not isinstance(raw_file, str):
            raise InputError(f"{start}: raw_file is {_short(raw_file)}; it is a text")
        if not isinstance(rows, list) or not rows:
            raise InputError(f"{start}: h_samples is {_short(rows)}; it is a list of the rows' y")
        y = _numbers([rows], [f"{start}: h_samples"])[0]
        _sizes(lanes, len(rows), start)
        x = _numbers(lanes, _names(lanes, start)).reshape(len(lanes), len(rows))
        if in_fractions(y) or in_fractions(x):
            raise InputError(
                f"{start}: no {'y' if in_fractions(y) else 'x'} is beyond 1; {IN_PIXELS}"
            )
        if not (y[0] >= 0 and y[-1] < FRAME_HEIGHT and (np.diff(y) > 0).all()):
            raise InputError(
                f"{start}: h_samples does not go down the frame; its y increase, and lie between 0 and "
                f"{FRAME_HEIGHT - 1}"
            )
        if not (x < FRAME_WIDTH).all():
            raise InputError(
                f"{start}: an x is {x[~(x < FRAME_WIDTH)][0]:g}; allowed are pixels of a frame "
                f"{FRAME_WIDTH} wide, {ABSENT} where the lane is not seen"
            )
        truth.append(Truth(raw_file, x, y, place))
    return truth


def _submitted(submitted: Prediction, frame: Truth) -> NDArray[np.float64]:
    """The lanes of a prediction, (lanes, rows)."""
    start = f"format of lanes: {submitted.place}"
    lanes, run_time = submitted.lanes, submitted.run_time
    shape = (_sizes(lanes, len(frame.rows), start), len(frame.rows))
    if not isinstance(run_time, int | float):
        raise InputError(f"{start}: run_time is {_short(run_time)}; it is a number, in ms")
    if not len(frame.lanes) or hopeless(len(lanes), len(frame.lanes), run_time):
        return np.broadcast_to(np.float64(ABSENT), shape)  # only their number counts
    return _numbers(lanes, _names(lanes, start)).reshape(shape)


def _lines(path: Path, start: str) -> list[tuple[str, Any]]:
    """Place and content of every line."""
    lines: list[tuple[str, Any]] = []
    linked = path.is_symlink()  # perhaps to a file that is none of the data's, which is not quoted
    try:
        check_regular(path)  # reading a pipe would block, and a device has no end
    except InputError as error:
        raise InputError(f"{start}: {error}") from error
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                place = f"{path}:{number}"
                try:
                    content = json.loads(line)
                except (ValueError, RecursionError) as error:
                    found = "" if linked else f" but {_short(line.rstrip())} ({error})"
                    raise InputError(
                        f"{start}: {place} is not JSON{found}; write one JSON object a line, and no empty lines"
                    ) from error
                if linked and not isinstance(content, dict):
                    raise InputError(f"{start}: {place} is no JSON object; write one a line")
                lines.append((place, content))
    except OSError as error:
        raise InputError(f"{start}: {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{start}: {path} is no text in UTF-8 ({error})") from error
    return lines


def _keys(content: Any, keys: Sequence[str], start: str) -> None:
    if not isinstance(content, dict):
        raise InputError(f"{start} is {_short(content)}; it is an object of {', '.join(keys)}")
    if missing := [key for key in keys if key not in content]:
        raise InputError(
            f"{start} has no {' and no '.join(missing)}, but {', '.join(content) or 'nothing'}; each "
            f"line has {', '.join(keys)}"
        )


def _sizes(lanes: Any, rows: int, start: str) -> int:
    """The number of lanes, after a check that each is a list with one value per row."""
    if not isinstance(lanes, list):
        raise InputError(f"{start}: lanes is {_short(lanes)}; it is a list with a list per lane")
    for number, lane in enumerate(lanes):
        if not isinstance(lane, list) or len(lane) != rows:
            is_what = f"has {len(lane)} values" if isinstance(lane, list) else f"is {_short(lane)}"
            raise InputError(
                f"{start}: lane {number} {is_what}; the frame has {rows} rows (h_samples): give a list "
                f"with an x for each, {ABSENT} where the lane is not seen"
            )
    return len(lanes)


def _names(lanes: Sequence[Any], start: str) -> list[str]:
    return [f"{start}: lane {number}" for number in range(len(lanes))]


def _numbers(lists: list[list[Any]], names: Sequence[str]) -> NDArray[np.float64]:
    """An array of lists of equal lengths, after a check that they contain numbers only."""
    try:
        array = np.array(lists)
    except ValueError:  # lists of different lengths in it
        array = np.array(None)
    if array.dtype.kind in "biuf" and array.ndim <= 2:
        return array.astype(np.float64)
    for values, name in zip(lists, names, strict=True):
        for number, value in enumerate(values):
            if not isinstance(value, int | float):
                raise InputError(
                    f"{name}: value {number} is {_short(value)}; allowed are numbers, in pixels, "
                    f"{ABSENT} where the lane is not seen"
                )
    return np.array([[max(min(value, _FAR), -_FAR) for value in values] for values in lists], float)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
