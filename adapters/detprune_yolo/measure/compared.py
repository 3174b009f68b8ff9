# SPDX-License-Identifier: AGPL-3.0-or-later
"""COCO annotations and predictions in the form that pycocotools compares: boxes, masks, key points."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths

from detprune.errors import InputError
from detprune_yolo.kinds import CocoType
from detprune_yolo.measure.entries import (
    box,
    get,
    integer,
    prediction_list,
    real,
    reference,
    some,
    table,
)

BOX_AREA_OF_POSES = 0.53
"""Area of a person over that of the box, by which Ultralytics compares key points where there is no mask."""


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
        references = {key: reference(entry, key, known[key], where) for key in known}
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
        image = reference(entry, "image_id", {*sizes}, where)
        shape = _shape_of(entry, kind, where, sizes[image])
        area = float(run_lengths.area(shape["segmentation"])) if kind == "segm" else None
        found.append(
            {
                "id": number + 1,
                "image_id": image,
                "category_id": reference(entry, "category_id", category_ids, where),
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


def set_sigmas(
    params: Any, sigmas: Sequence[float] | None, objects: Sequence[Mapping[str, Any]]
) -> None:
    if sigmas is not None:
        params.kpt_oks_sigmas = np.asarray(sigmas, dtype=np.float64)
    points = len(params.kpt_oks_sigmas)
    if other := {len(entry["keypoints"]) // 3 for entry in objects} - {points}:
        raise InputError(
            f"objects have {some(sorted(other))} key points, but there are sigmas for {points}; give the annotations "
            "of the data set, and its kpt_oks_sigmas"
        )
