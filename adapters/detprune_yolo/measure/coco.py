# SPDX-License-Identifier: AGPL-3.0-or-later
"""Average precision as COCO defines it, by pycocotools, on annotations and predictions in memory.

Boxes are ``[x, y, width, height]`` in pixels from the upper left corner. Nothing that is passed in
is changed.
"""

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detprune.errors import InputError
from detprune_yolo.kinds import CocoType
from detprune_yolo.measure import entries
from detprune_yolo.measure.compared import (
    BOX_AREA_OF_POSES,
    checked_predictions,
    ground_truth,
    set_sigmas,
)
from detprune_yolo.measure.entries import some


@dataclass(frozen=True)
class CocoScores:
    """Results of pycocotools, as fractions, with at most 100 predictions per image and class.

    Attributes:
        map50, map50_95: mean average precision at IoU 0.5, and averaged over 0.5, 0.55, …, 0.95.
        small, medium, large: the latter for objects up to 32² pixels, up to 96² and above; None
            where the ground truth has none.
        images, annotations, predictions: numbers of what was compared; crowds do not count.
    """

    map50: float
    map50_95: float
    small: float | None
    medium: float | None
    large: float | None
    images: int
    annotations: int
    predictions: int


def evaluate(
    annotations: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    *,
    image_ids: Sequence[int] | None = None,
    kind: CocoType = "bbox",
    sigmas: Sequence[float] | None = None,
) -> CocoScores:
    """Compare predictions with a COCO ground truth.

    Args:
        annotations: the content of a COCO instances file. A missing area is the box's, a missing
            iscrowd is 0.
        predictions: entries of image_id, category_id, bbox and score; none at all score 0.
        image_ids: images to compare, all by default.
        kind: what is compared: boxes, masks (``segmentation``), or key points (``keypoints``).
        sigmas: how far from each key point a prediction may be, in units of the object's size; COCO's by default,
            which are those of 17 points.

    Raises:
        InputError: an entry cannot be used, or these images have no ground truth.
    """
    truth = ground_truth(annotations, kind)
    known = {image["id"] for image in truth["images"]}
    chosen = known if image_ids is None else set(image_ids)
    if not chosen <= known:
        raise InputError(
            f"image_ids {some(chosen - known)} are no images of the annotations, which have "
            f"{some(sorted(known))}"
        )
    found = checked_predictions(predictions, truth, kind)
    with redirect_stdout(StringIO()):
        # filled in directly: loadRes changes what it is given and fails without predictions
        evaluation = COCOeval(_indexed(truth), _indexed({**truth, "annotations": found}), kind)
        evaluation.params.imgIds = sorted(chosen)
        if kind == "keypoints":
            set_sigmas(evaluation.params, sigmas, [*truth["annotations"], *found])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    everything, at50, _, *sizes = (float(value) for value in evaluation.stats[:6])
    if kind == "keypoints":  # there are no small poses in COCO
        sizes = [-1.0, *sizes[:2]]
    if everything < 0:  # pycocotools' value where there was nothing to find
        raise InputError(
            f"the annotations have no object in the {len(chosen)} images that are evaluated, so "
            "precision is not defined; give the annotations of these images"
        )
    small, medium, large = (None if value < 0 else value for value in sizes)
    return CocoScores(
        map50=at50,
        map50_95=everything,
        small=small,
        medium=medium,
        large=large,
        images=len(chosen),
        annotations=sum(
            entry["image_id"] in chosen and not entry["iscrowd"] for entry in truth["annotations"]
        ),
        predictions=sum(entry["image_id"] in chosen for entry in found),
    )


def remap(
    predictions: Sequence[Mapping[str, Any]],
    annotations: Mapping[str, Any],
    names: Mapping[int, str],
    *,
    category_ids: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """Give Ultralytics' predictions the annotations' ids: images by file name, classes by name.

    Args:
        predictions: the content of its predictions.json, where image_id is the file's stem.
        annotations: a COCO ground truth; it may have more images and categories.
        names: class index → class name, of the model that made the predictions.
        category_ids: what stands for each class index in the predictions; 1, 2, … by default, as
            Ultralytics writes for every data set that it does not take for COCO itself.

    Raises:
        InputError: a file or class is missing in the annotations or occurs twice there.
    """
    indices = sorted(names)
    given = range(1, len(indices) + 1) if category_ids is None else category_ids
    if len(given) != len(indices):
        raise InputError(f"there are {len(indices)} names but {len(given)} category_ids")
    wanted = entries.categories_by_name(annotations, [names[index] for index in indices])
    classes = dict(zip(given, wanted, strict=True))
    mapped: list[dict[str, Any]] = []
    for number, entry in enumerate(_by_file_name(predictions, annotations)):
        where = f"prediction {number}"
        category = entries.integer(entry, "category_id", where)
        if category not in classes:
            raise InputError(
                f"{where}: category_id {category} stands for none of the {len(names)} classes, which "
                f"are numbered {some(classes)}; name as many classes as the model has"
            )
        mapped.append(
            {
                "image_id": entry["image_id"],
                "category_id": classes[category],
                "bbox": entries.box(entry, where),
                "score": entries.real(entry, "score", where),
            }
        )
        mapped[-1].update(
            {key: entry[key] for key in ("segmentation", "keypoints") if key in entry}
        )
    return mapped


def from_labels(
    images: Sequence[tuple[str, int, int]],
    labels: Sequence[NDArray[np.floating[Any]]],
    names: Mapping[int, str],
    *,
    polygons: Sequence[Sequence[NDArray[np.floating[Any]]]] | None = None,
    keypoints: Sequence[NDArray[np.floating[Any]]] | None = None,
) -> dict[str, Any]:
    """Build a COCO ground truth from YOLO labels, with the categories 1, 2, … in the names' order.

    Boxes are clipped to the image, as Ultralytics clips predictions.

    Args:
        images: file name, width and height in pixels of every image; their ids are 1, 2, …
        labels: per image an array (n, 5) of class index, then centre x, centre y, width and height
            as fractions of the image.
        names: class index → class name.
        polygons: per image the outline of each object, (points, 2), as fractions of the image.
        keypoints: per image the key points of the objects, (n, points, 3): x and y as fractions of the image, and
            visibility.

    Raises:
        InputError: labels and images do not fit each other, or two images share a base name.
    """
    if len(images) != len(labels):
        raise InputError(f"there are {len(images)} images but {len(labels)} arrays of labels")
    category_ids = {index: number for number, index in enumerate(sorted(names), 1)}
    truth: dict[str, Any] = {
        "images": [
            {"id": number, "file_name": file, "width": width, "height": height}
            for number, (file, width, height) in enumerate(images, 1)
        ],
        "annotations": [],
        "categories": [{"id": i, "name": names[index]} for index, i in category_ids.items()],
    }
    entries.images_by_name(truth)  # refuses base names that occur twice
    for image, rows in zip(truth["images"], labels, strict=True):
        where = f"the labels of {image['file_name']}"
        rows = np.asarray(rows, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != 5:
            raise InputError(f"{where} have the shape {rows.shape}; it is (n, 5)")
        if not np.isfinite(rows).all() or (rows[:, 3:] < 0).any():
            raise InputError(f"{where} have a number that is not finite, or a negative size")
        if unknown := {float(row[0]) for row in rows} - set(category_ids):
            raise InputError(f"{where} have class {some(unknown)}; known: {some(category_ids)}")
        size = np.array([image["width"], image["height"]])
        number = int(image["id"]) - 1
        for place, row in enumerate(rows):
            corner = np.clip((row[1:3] - row[3:] / 2) * size, 0, size)
            extent = np.clip((row[1:3] + row[3:] / 2) * size, 0, size) - corner
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": category_ids[int(row[0])],
                    "bbox": [*corner.tolist(), *extent.tolist()],
                    "area": float(extent.prod()),
                    "iscrowd": 0,
                }
            )
            added = truth["annotations"][-1]
            if polygons is not None:
                outline = np.asarray(polygons[number][place], np.float64) * size
                added["segmentation"] = [outline.ravel().tolist()]
                del added["area"]  # that of the mask
            if keypoints is not None:
                points = np.asarray(keypoints[number][place], np.float64) * [*size, 1]
                added["keypoints"] = points.ravel().tolist()
                added["area"] *= BOX_AREA_OF_POSES
    return truth


def evaluate_file(
    predictions: Path, annotations: Path, names: Mapping[int, str] | None = None
) -> CocoScores:
    """Compare a file of predictions with a COCO file: plain COCO results, or Ultralytics' own file.

    Args:
        predictions: JSON list of predictions. If they have a file_name, and their image_ids are not
            those of these files in the annotations, images are found by file name.
        annotations: COCO instances file.
        names: class index → class name, if the predictions number their classes 1, 2, … in that
            order; without it category ids are taken to be the annotations'.

    Raises:
        InputError: a file cannot be read, or as in ``evaluate`` and ``remap``.
    """
    truth, found = entries.read_json(annotations), entries.read_json(predictions)
    try:
        if names is not None:
            return evaluate(truth, remap(found, truth, names))
        if not _ids_fit(found, truth):
            found = _by_file_name(found, truth)
        return evaluate(truth, found)
    except InputError as error:
        raise InputError(f"{predictions} against {annotations}: {error}") from error


def _ids_fit(predictions: Any, annotations: Any) -> bool:
    images = entries.table(annotations, "images")
    files = {i["id"]: i.get("file_name") for i in images if isinstance(i.get("id"), int)}
    for entry in entries.prediction_list(predictions):
        if "file_name" not in entry:
            return True  # there is no other way to tell
        image_id = entry.get("image_id")
        if not isinstance(image_id, int) or image_id not in files:
            return False
        # Ultralytics' ids are numeric stems, which may be the ids of other images by chance
        stored = files[image_id]
        if stored is not None and entries.base_name(stored) != entries.base_name(
            entry["file_name"]
        ):
            return False
    return True


def _by_file_name(predictions: Any, annotations: Any) -> list[dict[str, Any]]:
    images = entries.images_by_name(annotations)
    mapped = []
    for number, entry in enumerate(entries.prediction_list(predictions)):
        file_name = entries.get(entry, "file_name", f"prediction {number}")
        image = images.get(entries.base_name(file_name))
        if image is None:
            raise InputError(
                f"prediction {number}: file_name {file_name!r} is no image of the annotations, which "
                f"have {some(images)}"
            )
        mapped.append({**entry, "image_id": image["id"]})
    return mapped


def _indexed(dataset: Mapping[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = dict(dataset)
    coco.createIndex()
    return coco
