# SPDX-License-Identifier: AGPL-3.0-or-later
"""The check of label files: whether each line has the form that the task needs."""

import math
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from ultralytics.data.utils import img2label_paths

from detprune.errors import listed
from detprune.files.problems import Kind as Fault
from detprune.files.problems import Problems
from detprune_yolo.data import problem_kinds as kinds
from detprune_yolo.kinds import Kind

_TOLERANCE = 0.01  # Ultralytics' value; it drops an image whose labels exceed it
_COLUMNS = 5


@dataclass(frozen=True)
class Rules:
    """What labels have to be: number of classes, numbers of all key points of an object and of one, and the kind."""

    nc: int
    keypoints: int
    kind: Kind
    of_point: int = 2


def check_labels(split: str, files: list[str], rules: Rules, problems: Problems) -> int:
    """Check the label files of a split; return the number of images with boxes."""
    found = labelled = 0
    missing: list[str] = []
    places = img2label_paths(list(files))
    for place in places:
        if os.path.exists(place) and not os.path.isfile(place):
            problems[kinds.NOT_A_FILE].append(place)
            continue
        try:
            with open(place, encoding="utf-8-sig") as file:
                text = file.read()
        except (FileNotFoundError, NotADirectoryError):
            if os.path.islink(place):
                problems[kinds.DEAD_LINK].append(place)
            else:
                missing.append(place)
            continue
        except UnicodeDecodeError:
            problems[kinds.MALFORMED].append(
                f"{place} (not text in UTF-8, in which it is to be saved)"
            )
            continue
        except OSError as error:
            problems[kinds.UNREADABLE].append(f"{place} ({error.strerror})")
            continue
        found += 1
        rows = [(number, line.split()) for number, line in enumerate(text.splitlines(), start=1)]
        rows = [(number, columns) for number, columns in rows if columns]
        labelled += bool(rows)
        for number, kind in _faults(rows, rules):
            problems[kind].append(f"{place}:{number}")
    if other := in_other_case(missing, {*places}):
        problems[kinds.OTHER_CASE] += other
    elif files and not found and split != "test":
        problems[kinds.NO_LABELS].append(f"{split}: expected {listed(places)}")
    elif found and not labelled:
        problems[kinds.EMPTY].append(f"{split}: {listed(places)}")
    return labelled


def in_other_case(missing: Iterable[str], known: Collection[str]) -> list[str]:
    """Label files whose names differ in capitals alone from those of images without a label file, such as ``A.TXT``.

    Args:
        missing: the label files that are not there.
        known: the label files of all images, which are read.
    """
    wanted: dict[str, set[str]] = defaultdict(set)
    for place in missing:
        folder, name = os.path.split(place)
        wanted[folder].add(name.casefold())
    found = []
    for folder, names in wanted.items():
        try:
            there = os.listdir(folder)
        except OSError:
            continue
        found += [os.path.join(folder, name) for name in there if name.casefold() in names]
    return sorted(file for file in found if file not in known)


def not_numbers(place: str) -> int:
    """Number of the first line of a label file in which a column is no number; 1 if there is none."""
    with open(place, encoding="utf-8-sig", errors="replace") as file:
        lines = file.read().splitlines()
    rows = enumerate((line.split() for line in lines), start=1)
    return next((number for number, row in rows if not all(map(_is_number, row))), 1)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _faults(rows: list[tuple[int, list[str]]], rules: Rules) -> Iterator[tuple[int, Fault]]:
    """Faults of the lines of a label file."""
    labels, whole = rules.kind.labels, _COLUMNS + rules.keypoints
    if labels == "keypoints":
        for number, columns in rows:
            if len(columns) != whole:
                yield number, kinds.NO_POSE
            elif kind := _fault(columns[:_COLUMNS], rules.nc, polygons=False):
                yield number, kind
            elif not all(map(_is_finite, columns[_COLUMNS:])):
                yield number, kinds.MALFORMED
            elif not _are_inside([float(value) for value in columns[_COLUMNS:]], rules.of_point):
                yield number, kinds.OUTSIDE
        return
    if rules.keypoints:  # Ultralytics keeps the box of a pose label
        rows = [
            (n, columns[:_COLUMNS] if len(columns) == whole else columns) for n, columns in rows
        ]
    polygons = any(len(columns) > _COLUMNS + 1 for _, columns in rows)
    for number, columns in rows:
        if labels != "boxes" and len(columns) == _COLUMNS:
            yield number, kinds.NO_POLYGON if labels == "polygons" else kinds.NO_CORNERS
        elif kind := _fault(columns, rules.nc, polygons):
            yield number, kind


def _are_inside(numbers: list[float], of_point: int) -> bool:
    """Whether key points lie in the image; Ultralytics drops an image where one does not, or is seen less than 0."""
    places = [number for index, number in enumerate(numbers) if index % of_point < 2]
    return min(numbers) >= -_TOLERANCE and max(places) <= 1 + _TOLERANCE


def _is_finite(text: str) -> bool:
    return _is_number(text) and math.isfinite(float(text))


def _fault(columns: list[str], nc: int, polygons: bool) -> Fault | None:
    """The fault of a label line, or None."""
    try:
        label, *points = map(float, columns)
    except ValueError:
        return kinds.MALFORMED
    # Ultralytics takes all rows of a file for polygons if one of them is.
    fits = len(points) >= 6 and len(points) % 2 == 0 if polygons else len(columns) == _COLUMNS
    if not fits or not label.is_integer() or not all(map(math.isfinite, points)):
        return kinds.MALFORMED
    if not 0 <= label < nc:
        return kinds.CLASS
    if polygons:  # judged by its box, as Ultralytics does
        left, right = min(points[::2]), max(points[::2])
        top, bottom = min(points[1::2]), max(points[1::2])
        points = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    if not all(-_TOLERANCE <= value <= 1 + _TOLERANCE for value in points):
        return kinds.OUTSIDE
    return None if points[2] > 0 and points[3] > 0 else kinds.FLAT
