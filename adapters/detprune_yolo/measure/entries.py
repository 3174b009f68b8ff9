# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reading and checking of COCO annotations and predictions, entry by entry, into new plain objects."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path, PurePath
from typing import Any

from pycocotools import mask as run_lengths

from detprune.errors import InputError
from detprune_yolo.kinds import CocoType

BOX_AREA_OF_POSES = 0.53
"""Area of a person over that of the box, by which Ultralytics compares key points where there is no mask."""

_PREDICTION = "{image_id, category_id, bbox: [x, y, width, height], score}"


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error


def table(annotations: Any, key: str) -> Sequence[Mapping[str, Any]]:
    """The list ``images``, ``annotations`` or ``categories`` of COCO annotations.

    Raises:
        InputError: the annotations are no mapping with a list of objects under this key.
    """
    if not isinstance(annotations, Mapping) or key not in annotations:
        keys = ", ".join(map(str, annotations)) if isinstance(annotations, Mapping) else "no keys"
        raise InputError(
            f"the annotations have no {key!r} but {keys}; a COCO instances file is one object with "
            "the lists images, annotations and categories"
        )
    return _objects(annotations[key], f"{key!r} of the annotations", "objects")


def prediction_list(predictions: Any) -> Sequence[Mapping[str, Any]]:
    """The predictions, if they are a list of objects.

    Raises:
        InputError: they are not.
    """
    return _objects(predictions, "the predictions", _PREDICTION)


def ground_truth(annotations: Any, kind: CocoType = "bbox") -> dict[str, list[dict[str, Any]]]:
    """The part of COCO annotations that pycocotools needs, with area, iscrowd and ids from 1.

    Args:
        kind: what is compared: boxes, masks or key points. The latter two are there beside the boxes, masks as
            run-length encodings.

    Raises:
        InputError: an entry is incomplete, refers to nothing, or an id occurs twice.
    """
    truth: dict[str, list[dict[str, Any]]] = {"images": [], "categories": [], "annotations": []}
    for key in ("images", "categories"):
        ids: set[int] = set()
        for number, entry in enumerate(table(annotations, key)):
            where = f"{key} entry {number} of the annotations"
            i = integer(entry, "id", where)
            if i in ids:
                raise InputError(f"{where}: the id {i} occurs twice; make the ids unique")
            ids.add(i)
            truth[key].append({"id": i})
            if kind == "segm" and key == "images":
                sides = {side: integer(entry, side, where) for side in ("height", "width")}
                truth[key][-1].update(sides)
    sizes = {
        image["id"]: (image.get("height", 0), image.get("width", 0)) for image in truth["images"]
    }
    known = {"image_id": {image["id"] for image in truth["images"]}}
    known["category_id"] = {category["id"] for category in truth["categories"]}
    for number, entry in enumerate(table(annotations, "annotations")):
        where = f"annotation {number}"
        bbox = box(entry, where)
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise InputError(f"{where}: iscrowd is {crowd!r}; it is 0 or 1")
        references = {key: _reference(entry, key, known[key], where) for key in known}
        shape = _shape_of(entry, kind, where, sizes[references["image_id"]])
        area = bbox[2] * bbox[3]
        if kind == "segm":
            area = float(run_lengths.area(shape["segmentation"]))
        elif kind == "keypoints":
            area *= BOX_AREA_OF_POSES
        truth["annotations"].append(
            {
                # pycocotools takes an object with the id 0 for a missed one
                "id": number + 1,
                **references,
                "bbox": bbox,
                "area": real(entry, "area", where) if "area" in entry else area,
                "iscrowd": int(crowd),
                **shape,
            }
        )
    return truth


def checked_predictions(
    predictions: Any,
    truth: Mapping[str, Sequence[Mapping[str, Any]]],
    kind: CocoType = "bbox",
) -> list[dict[str, Any]]:
    """Predictions in the form that pycocotools needs, with ids from 1.

    Args:
        truth: result of ``ground_truth``.
        kind: what is compared.

    Raises:
        InputError: an entry is incomplete or its image or category is unknown.
    """
    sizes = {
        image["id"]: (image.get("height", 0), image.get("width", 0)) for image in truth["images"]
    }
    category_ids = {category["id"] for category in truth["categories"]}
    found = []
    for number, entry in enumerate(prediction_list(predictions)):
        where = f"prediction {number}"
        bbox = box(entry, where)
        image = _reference(entry, "image_id", {*sizes}, where)
        shape = _shape_of(entry, kind, where, sizes[image])
        area = float(run_lengths.area(shape["segmentation"])) if kind == "segm" else None
        found.append(
            {
                "id": number + 1,
                "image_id": image,
                "category_id": _reference(entry, "category_id", category_ids, where),
                "bbox": bbox,
                "area": bbox[2] * bbox[3] if area is None else area,
                "iscrowd": 0,
                "score": real(entry, "score", where),
                **shape,
            }
        )
    return found


def _shape_of(
    entry: Mapping[str, Any], kind: CocoType, where: str, size: tuple[int, int]
) -> dict[str, Any]:
    """What an entry has beside its box: the mask, or the key points and how many of them are visible."""
    if kind == "segm":
        return {"segmentation": mask(entry, where, *size)}
    if kind == "keypoints":
        points = keypoints(entry, where)
        return {"keypoints": points, "num_keypoints": sum(v > 0 for v in points[2::3])}
    return {}


def mask(entry: Mapping[str, Any], where: str, height: int, width: int) -> dict[str, Any]:
    """The segmentation of an entry as a run-length encoding.

    Args:
        height, width: of the image, in pixels.
    """
    given = get(entry, "segmentation", where)
    polygons = isinstance(given, list) and all(
        isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 for p in given
    )
    encoded = isinstance(given, Mapping) and list(given.get("size", ())) == [height, width]
    if not (polygons and given) and not encoded:
        raise InputError(
            f"{where}: segmentation is neither polygons ([[x1, y1, x2, y2, x3, y3, …], …], in pixels) nor a run-length "
            f"encoding of an image of {height} × {width} pixels"
        )
    try:
        runs = run_lengths.frPyObjects(given, height, width) if _is_plain(given) else given
        merged: dict[str, Any] = run_lengths.merge(runs) if isinstance(runs, list) else dict(runs)
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{where}: segmentation cannot be read: {error}") from error
    return merged


def _is_plain(given: Any) -> bool:
    """Whether a segmentation is no compressed run-length encoding."""
    return isinstance(given, list) or isinstance(given.get("counts"), list)


def keypoints(entry: Mapping[str, Any], where: str) -> list[float]:
    """The key points of an entry: x, y and visibility of each."""
    values = get(entry, "keypoints", where)
    if not isinstance(values, list | tuple) or not values or len(values) % 3:
        raise InputError(
            f"{where}: keypoints is {values!r}; it is [x1, y1, v1, x2, y2, v2, …], with v 0 where there is no point"
        )
    return [real({"keypoints": value}, "keypoints", where) for value in values]


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


def _reference(entry: Mapping[str, Any], key: str, known: set[int], where: str) -> int:
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
