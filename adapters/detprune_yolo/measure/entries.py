# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reading and checking of COCO annotations and predictions, entry by entry, into new plain objects."""

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path, PurePath
from typing import Any

from detprune.errors import InputError
from detprune.files.contents import parse_json, read_text

_LISTS = {"images", "annotations", "categories"}
_PREDICTION = "{image_id, category_id, bbox: [x, y, width, height], score}"


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it is missing, no regular file or not JSON; or a link to something else than annotations or
            predictions.
    """
    way_out = f"give a COCO instances file, or a JSON list of {_PREDICTION}"
    content = parse_json(read_text(path, way_out), str(path), way_out)
    # a link may lead to a file that is none of the data's, whose entries and keys are not for messages
    if path.is_symlink() and not _is_of_coco(content):
        raise InputError(f"{path} holds neither annotations nor predictions; {way_out}")
    return content


def _is_of_coco(content: Any) -> bool:
    """Whether it has a list of annotations, or is a list of predictions, right or wrong in its entries."""
    if isinstance(content, list):
        return all(isinstance(entry, Mapping) and "image_id" in entry for entry in content)
    return isinstance(content, Mapping) and not _LISTS.isdisjoint(content)


def table(annotations: Any, key: str) -> Sequence[Mapping[str, Any]]:
    """The list ``images``, ``annotations`` or ``categories`` of COCO annotations.

    Raises:
        InputError: the annotations are no mapping with a list of objects under this key.
    """
    if not isinstance(annotations, Mapping) or key not in annotations:
        if isinstance(annotations, Mapping):
            found = f"have no {key!r} but {', '.join(map(str, annotations)) or 'nothing'}"
        else:
            found = f"are no object but a {type(annotations).__name__}"
        raise InputError(
            f"the annotations {found}; a COCO instances file is one object with "
            "the lists images, annotations and categories"
        )
    return _objects(annotations[key], f"{key!r} of the annotations", "objects")


def prediction_list(predictions: Any) -> Sequence[Mapping[str, Any]]:
    """The predictions, if they are a list of objects.

    Raises:
        InputError: they are not.
    """
    return _objects(predictions, "the predictions", _PREDICTION)


def images_by_name(annotations: Any) -> dict[str, Mapping[str, Any]]:
    """The annotations' images by base name.

    Raises:
        InputError: an image has no file_name or id, or two have the same base name.
    """
    images: dict[str, Mapping[str, Any]] = {}
    for number, image in enumerate(table(annotations, "images")):
        where = f"images entry {number} of the annotations"
        integer(image, "id", where)
        file_name = get(image, "file_name", where)
        other = images.setdefault(base_name(file_name), image)
        if other is not image:
            raise InputError(
                f"two images have the same base name, {other['file_name']!r} and {file_name!r}, but "
                "predictions know images by their base names only; rename one of the files"
            )
    return images


def categories_by_name(annotations: Any, names: Sequence[str]) -> list[int]:
    """The annotations' category id of each class name.

    Raises:
        InputError: a name is missing or occurs twice.
    """
    categories: dict[str, list[int]] = {}
    for number, category in enumerate(table(annotations, "categories")):
        where = f"categories entry {number} of the annotations"
        name = str(get(category, "name", where))
        categories.setdefault(name, []).append(integer(category, "id", where))
    if missing := [name for name in names if name not in categories]:
        raise InputError(
            f"the classes {some(missing)} are not in the annotations, whose categories are "
            f"{some(categories)}; give both the same names"
        )
    if twice := {name for name in names if len(categories[name]) > 1 or names.count(name) > 1}:
        raise InputError(f"the class names {some(twice)} occur twice; make them unique")
    return [categories[name][0] for name in names]


def get(entry: Mapping[str, Any], key: str, where: str) -> Any:
    """Return a value of an entry; an error if it has none."""
    if key not in entry:
        raise InputError(f"{where} has no {key}; it has: {some(entry)}")
    return entry[key]


def integer(entry: Mapping[str, Any], key: str, where: str) -> int:
    """Return a whole number of an entry; a number in quotes is refused."""
    value = get(entry, key, where)
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{where}: {key} is {value!r}, which is no whole number")
    return int(value)


def real(entry: Mapping[str, Any], key: str, where: str) -> float:
    """Return a finite number of an entry."""
    value = get(entry, key, where)
    try:
        number = (
            math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
        )
    except OverflowError:  # JSON's whole numbers have no limit
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{where}: {key} is {value!r}, which is no finite number")
    return number


def box(entry: Mapping[str, Any], where: str) -> list[float]:
    """The bbox of an entry: x, y, width, height in pixels."""
    values = get(entry, "bbox", where)
    if not isinstance(values, list | tuple) or len(values) != 4:
        raise InputError(f"{where}: bbox is {values!r}; it is [x, y, width, height] in pixels")
    numbers = [real({"bbox": value}, "bbox", where) for value in values]
    if min(numbers[2:]) < 0:
        raise InputError(f"{where}: bbox {numbers} has a negative width or height")
    return numbers


def base_name(file_name: object) -> str:
    """The last part of a path, by which Ultralytics names images."""
    return PurePath(str(file_name)).name


def some(values: Iterable[object]) -> str:
    """The first few of the values, for a message."""
    listed = list(values)
    more = f", … ({len(listed)} in all)" if len(listed) > 10 else ""
    return ", ".join(map(repr, listed[:10])) + more


def _objects(values: Any, what: str, of: str) -> Sequence[Mapping[str, Any]]:
    if not isinstance(values, list | tuple):
        raise InputError(f"{what} are no list but {type(values).__name__}; give a list of {of}")
    for number, value in enumerate(values):
        if not isinstance(value, Mapping):
            raise InputError(f"entry {number} of {what} is {value!r}; give a list of {of}")
    return values


def reference(entry: Mapping[str, Any], key: str, known: set[int], where: str) -> int:
    value = get(entry, key, where)
    if not isinstance(value, bool) and isinstance(value, Integral) and value in known:
        return int(value)
    kind = key.removesuffix("_id")
    if isinstance(value, str):
        problem = "is a text, but COCO's ids are whole numbers"
    else:
        problem = f"is no {kind} of the annotations, which have {some(sorted(known))}"
    remedy = {
        "image_id": "give each prediction its file_name, by which images are then found",
        "category_id": "map the classes by name, with remap() in Python or --names on the command line",
    }[key]
    hint = f"; {remedy}" if "score" in entry else ""
    raise InputError(f"{where}: {key} {value!r} {problem}{hint}")
