"""TuSimple's label files: one JSON object per line, with ``raw_file``, ``lanes`` and ``h_samples``.

The format is that of TuSimple's lane detection challenge of 2017. One error lists all faults of the
files, before training; no image is decoded here.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detprune.errors import InputError
from detprune.files import read_bytes
from detprune.files.problems import Kind, Problems, refuse
from detprune.loggers import logger
from detprune_lanes.data.units import IN_PIXELS, WITH_LANES, in_fractions, without_lanes
from detprune_lanes.grid import FRAME_HEIGHT, FRAME_WIDTH

LOGGER = logger(__name__)

_KEYS = ("raw_file", "lanes", "h_samples")


@dataclass(frozen=True)
class Frame:
    """An image and its lanes.

    Attributes:
        raw_file: the image as the label file names it.
        image: the image's absolute path.
        rows: y of the labelled rows, (R,), pixels of the 1280x720 frame, from the top down.
        lanes: x of each lane in every row, (R,), pixels; negative (-2) where it is not seen.
        place: file and line of the label, as in ``label_data_0313.json:17``.
    """

    raw_file: str
    image: Path
    rows: NDArray[np.float64]
    lanes: tuple[NDArray[np.float64], ...]
    place: str


_NO_FILE = Kind("label files that cannot be read", "correct their names")
_EMPTY = Kind("label files without a label", "leave them out")
_NO_LANES = Kind("label files without a single lane", WITH_LANES)
_FRACTIONS = Kind("labels in fractions of the image", IN_PIXELS)
_NOT_JSON = Kind("lines that are no JSON object", "a label is one JSON object in one line")
_NO_KEY = Kind("labels with missing keys", f"a label has {', '.join(_KEYS)}")
_NUMBERS = Kind(
    "labels with something else than numbers",
    "h_samples is a list of numbers, and lanes a list of such lists, with -2 where a lane is not seen",
)
_ROWS = Kind(
    "labels whose rows do not go down the image",
    f"h_samples increases, and lies between 0 and {FRAME_HEIGHT - 1}",
)
_LENGTH = Kind("lanes with another number of values than there are rows", "give one x per h_sample")
_WIDE = Kind(
    "lanes beyond the image's right edge",
    f"x is in pixels of an image {FRAME_WIDTH} wide and {FRAME_HEIGHT} high",
)
_NAME = Kind("labels whose raw_file is no file name", "name the image by its path below the root")
_OUTSIDE = Kind(
    "images outside the root",
    "raw_file is a path below the root without a leading `/`, and neither `..` nor a symbolic link "
    "may lead out of the root; where a link leads to another disk, make the folder there the root, and give the "
    "label files by their full paths",
)
_NO_IMAGE = Kind(
    "images that do not exist",
    "unpack the images below the root, or correct the root; raw_file has / between folders, not a backslash",
)
_TWICE = Kind("images with more than one label", "leave all but one label of an image out")


def read_labels(files: Sequence[Path], root: Path, *, check_images: bool = True) -> list[Frame]:
    """Read the frames of label files, in the order of files and lines; blank lines are skipped.

    A frame may have any number of lanes, none included, and any rows; a file has a lane at least.

    Args:
        files: the label files.
        root: the folder below which every ``raw_file`` lies.
        check_images: whether the images must exist.

    Raises:
        InputError: names all problems of all files, each kind with its number, the first few and the
            way out.
    """
    if not files:
        raise InputError("no label files are given; TuSimple's are called label_data_*.json")
    problems: Problems = defaultdict(list)
    folder = os.path.realpath(root)
    frames: list[Frame] = []
    places: dict[str, str] = {}  # image → place of its label
    for file in files:
        labels = list(_labels(file, problems))
        if looks := without_lanes([label for _, label in labels]):
            problems[_NO_LANES].append(f"{file.name} ({looks})")
            continue
        for place, label in labels:
            frame = _frame(place, label, folder, check_images, problems)
            if frame is None:
                continue
            frames.append(frame)
            first = places.setdefault(str(frame.image), place)
            if first != place:
                problems[_TWICE].append(f"{place} `{frame.raw_file}` (also {first})")
    refuse(f"labels with the root {root}", problems)
    lowest = max((frame.rows[-1] for frame in frames), default=FRAME_HEIGHT)
    if lowest < FRAME_HEIGHT / 2:
        LOGGER.warning(
            "no row of the labels lies below y = %g, which is in the upper half of the frames, as in labels of a "
            "smaller image; %s",
            *(lowest, IN_PIXELS),
        )
    return frames


def _labels(file: Path, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON objects of a file, each with its place."""
    try:
        lines = read_bytes(file).split(b"\n")
    except InputError as error:
        problems[_NO_FILE].append(str(error).removeprefix("cannot read "))
        return
    if not any(map(bytes.strip, lines)):
        problems[_EMPTY].append(str(file))
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{file.name}:{number}"
        try:
            label = json.loads(line)  # of bytes, with a byte order mark or without
        except (ValueError, RecursionError):
            label = None
        if isinstance(label, dict):
            yield place, label
        else:
            problems[_NOT_JSON].append(place)


def _frame(
    place: str, label: dict[str, Any], root: str, check_image: bool, problems: Problems
) -> Frame | None:
    """One label as a `Frame`, or None if it has a fault."""
    missing = [key for key in _KEYS if key not in label]
    if missing:
        problems[_NO_KEY].append(f"{place} ({', '.join(missing)})")
        return None
    image = _image(place, label["raw_file"], root, check_image, problems)
    rows = _numbers(label["h_samples"])
    lanes = [_numbers(x) for x in label["lanes"]] if isinstance(label["lanes"], list) else [None]
    if rows is None:
        problems[_NUMBERS].append(f"{place} h_samples")
    elif not len(rows) or rows[0] < 0 or rows[-1] >= FRAME_HEIGHT or (np.diff(rows) <= 0).any():
        problems[_ROWS].append(place)
    elif in_fractions(rows):
        problems[_FRACTIONS].append(f"{place} h_samples (up to {rows[-1]:g})")
    good: list[NDArray[np.float64]] = []
    for number, x in enumerate(lanes):
        if x is None:
            problems[_NUMBERS].append(f"{place} lanes[{number}]")
        elif rows is not None and len(x) != len(rows):
            problems[_LENGTH].append(
                f"{place} lanes[{number}] ({len(x)} values, {len(rows)} h_samples)"
            )
        elif (x >= FRAME_WIDTH).any():
            problems[_WIDE].append(f"{place} lanes[{number}] (x = {x.max():g})")
        else:
            good.append(x)
    if len(good) == len(lanes) and in_fractions(*good):
        problems[_FRACTIONS].append(f"{place} lanes (x up to {max(x.max() for x in good):g})")
    if image is None or rows is None or len(good) < len(lanes):
        return None
    return Frame(label["raw_file"], image, rows, tuple(good), place)


def _numbers(values: Any) -> NDArray[np.float64] | None:
    """A list of finite numbers as an array; None for anything else."""
    if not isinstance(values, list) or not set(map(type, values)) <= {int, float}:
        return None
    try:
        array = np.array(values, dtype=np.float64)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return array if np.isfinite(array).all() else None


def _image(place: str, raw_file: Any, root: str, check: bool, problems: Problems) -> Path | None:
    """The image's absolute path, or None if the image cannot be used."""
    shown = f"{place} `{raw_file}`"
    if not isinstance(raw_file, str) or not raw_file.strip() or "\0" in raw_file:
        problems[_NAME].append(f"{place} `{raw_file!r}`")
        return None
    image = os.path.realpath(os.path.join(root, raw_file))
    if os.path.isabs(raw_file) or os.path.commonpath([root, image]) != root:
        problems[_OUTSIDE].append(shown)
        return None
    if check and not os.path.isfile(image):
        problems[_NO_IMAGE].append(shown)
        return None
    return Path(image)
