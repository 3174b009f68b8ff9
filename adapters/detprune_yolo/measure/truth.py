# SPDX-License-Identifier: AGPL-3.0-or-later
"""The ground truth of a split as COCO annotations, from label files or from a COCO file."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from ultralytics.data.utils import exif_size

from detprune.errors import InputError
from detprune_yolo.kinds import DETECT, Kind
from detprune_yolo.measure.coco import from_labels
from detprune_yolo.measure.compared import ground_truth
from detprune_yolo.measure.entries import categories_by_name, images_by_name, integer, some


def ground_truth_of(
    labels: list[dict[str, Any]],
    names: dict[int, str],
    coco: Any,
    file: Path | None,
    kind: Kind = DETECT,
) -> tuple[dict[str, Any], list[int]]:
    """COCO annotations, and the ids of the split's images in them.

    Args:
        labels: labels of an Ultralytics data set.
        names: class index → class name.
        coco: content of a COCO file; None builds annotations from the labels.
        file: its path, for messages.
        kind: the kind of the network, which says what is compared.

    Raises:
        InputError: an image or a class is missing, occurs twice, or has another size in ``coco``.
    """
    # sorted by name: ids decide between predictions of equal score, and Ultralytics' order depends on rect
    labels = sorted(labels, key=lambda label: str(label["im_file"]))
    images = [_sized(label["im_file"]) for label in labels]
    if coco is None:
        rows = [np.concatenate([label["cls"], label["bboxes"]], axis=1) for label in labels]
        shapes: dict[str, Any] = {}
        if kind.labels == "polygons":
            shapes["polygons"] = [label["segments"] for label in labels]
        elif kind.labels == "keypoints":
            shapes["keypoints"] = [label["keypoints"] for label in labels]
        truth = from_labels(images, rows, names, **shapes)
        categories_by_name(truth, list(names.values()))  # refuses names that occur twice
        return truth, [image["id"] for image in truth["images"]]
    annotated = annotated_images(coco, names, file, kind, [path for path, _, _ in images])
    for path, width, height in images:
        stored = annotated[Path(path).name]
        if (stored.get("width", width), stored.get("height", height)) != (width, height):
            raise InputError(
                f"{path} has {width} × {height} pixels, but in {file} {stored.get('width')} × "
                f"{stored.get('height')}; give the images that were annotated"
            )
    return coco, [integer(annotated[Path(path).name], "id", path) for path, _, _ in images]


def annotated_images(
    coco: Any,
    names: Mapping[int, str],
    file: Path | None,
    kind: Kind,
    images: Iterable[str | Path],
) -> dict[str, Mapping[str, Any]]:
    """The entries of a COCO file's images by their names.

    Args:
        coco: content of the file.
        names: class index → class name.
        file: its path, for messages.
        kind: the kind of the network, which says what is compared.
        images: those of the split.

    Raises:
        InputError: an entry is wrong, or an image or a class is missing or occurs twice.
    """
    try:
        for own in kind.coco_types:
            ground_truth(coco, own)
        categories_by_name(coco, list(names.values()))
        annotated = images_by_name(coco)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    paths = [str(path) for path in images]
    if missing := [path for path in paths if Path(path).name not in annotated]:
        raise InputError(
            f"{len(missing)} of {len(paths)} images are not in {file}: {some(missing)}; give the "
            "annotations of this split"
        )
    return annotated


def _sized(path: str) -> tuple[str, int, int]:
    """File, width and height of an image, upright as Ultralytics loads it; its labels lose the shape with rect."""
    with Image.open(path) as image:
        return (path, *exif_size(image))
