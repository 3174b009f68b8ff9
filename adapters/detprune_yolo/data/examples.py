# SPDX-License-Identifier: AGPL-3.0-or-later
"""Choice of labelled images of a data set for the report; the data set's folder stays unchanged."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from ultralytics.data.utils import check_det_dataset, img2label_paths
from ultralytics.utils.ops import segments2boxes, xywhn2xyxy, xyxyxyxy2xywhr
from ultralytics.utils.patches import imread

from detprune.errors import InputError
from detprune.files import load_yaml
from detprune_yolo.data.images import image_files
from detprune_yolo.data.places import check_class_folders
from detprune_yolo.kinds import DETECT, Kind

Pixels: TypeAlias = npt.NDArray[np.uint8]

_SPLITS = ("train", "val", "test", "minival")
_CANDIDATES = (
    32  # images looked at per part of the split: reading all labels of a large one takes long
)
_OBJECTS = 4  # preferred number of objects: enough to compare models by, few enough to tell apart


@dataclass(frozen=True)
class Example:
    """An image of a data set with its labels.

    Attributes:
        pixels: (height, width, 3), BGR.
        boxes: (objects, 6): x1, y1, x2, y2 in pixels, 1, class, which is Ultralytics' form.
        shapes: what the labels have beside boxes, as arguments of Ultralytics' ``Results``: ``masks``, ``keypoints``,
            or ``obb`` in place of boxes; for classification ``probs``.
    """

    file: Path
    pixels: Pixels
    boxes: torch.Tensor
    shapes: Mapping[str, torch.Tensor] = field(default_factory=dict)


def data_set(data_yaml: Path, split: str, kind: Kind = DETECT) -> dict[str, Any]:
    """Return a data set as Ultralytics describes it, its paths made absolute.

    Raises:
        InputError: the file is not there or unusable, or has no such split.
    """
    read = check_class_folders if kind.labels == "folders" else _described
    data: dict[str, Any] = read(data_yaml)
    known = [name for name in _SPLITS if data.get(name)]
    if split not in known:
        raise InputError(
            f"the data set {data_yaml} has no split {split!r}; it has: {', '.join(known)}"
        )
    return data


def _described(data_yaml: Path) -> dict[str, Any]:
    if not data_yaml.is_file():  # Ultralytics would try to download it
        raise InputError(f"there is no data set file {data_yaml}; name an existing .yaml file")
    load_yaml(data_yaml, strict=False)  # limits the file's size, and names the line of an error
    try:
        data: dict[str, Any] = check_det_dataset(str(data_yaml), autodownload=False)
    except (OSError, SyntaxError, TypeError, ValueError, KeyError) as error:
        raise InputError(f"{data_yaml} cannot be used as a data set: {error}") from error
    return data


def choose_examples(
    data: Mapping[str, Any], split: str, images: int, seed: int, kind: Kind = DETECT
) -> list[Example]:
    """Take one image from each of as many equal parts of the sorted split.

    In each part, about four labelled objects are preferred. The same data and seed give the same
    images; a part with nothing that can be read gives none.
    """
    rng = random.Random(seed)
    places = data[split] if isinstance(data[split], list) else [data[split]]
    files = sorted(Path(file) for place in places for file in image_files(Path(place)))
    count = min(images, len(files))
    chosen = []
    for part in range(count):
        part_files = files[part * len(files) // count : (part + 1) * len(files) // count]
        candidates = []
        for file in rng.sample(part_files, min(len(part_files), _CANDIDATES)):
            labels = _labels(file, data, kind)
            if labels is not None:
                candidates.append((file, labels))
        candidates.sort(key=lambda c: (len(c[1].boxes) == 0, abs(len(c[1].boxes) - _OBJECTS)))
        chosen += next(([e] for c in candidates if (e := _read(*c, kind)) is not None), [])
    return chosen


@dataclass(frozen=True)
class _Labels:
    """Labels of an image, in shares of its sides.

    Attributes:
        boxes: (objects, 5): class, then centre and size.
        polygons: the outline of each object, if the labels have it.
        points: (objects, key points, 3), if they have them.
    """

    boxes: npt.NDArray[np.float32]
    polygons: Sequence[npt.NDArray[np.float32]] = ()
    points: npt.NDArray[np.float32] | None = None


def _labels(image: Path, data: Mapping[str, Any], kind: Kind) -> _Labels | None:
    """Return the labels of an image; None if they are unusable.

    Not read by Ultralytics' ``verify_image_label``, which also rewrites JPEG files that are cut off.
    """
    names: Mapping[int, str] = data["names"]
    if kind.labels == "folders":
        number = next((n for n, name in names.items() if name == image.parent.name), None)
        return None if number is None else _Labels(np.array([[number, 0, 0, 0, 0]], np.float32))
    file = Path(img2label_paths([str(image)])[0])
    boxes, polygons = np.zeros((0, 5), np.float32), []
    points: list[npt.NDArray[np.float32]] = []
    shape = data.get("kpt_shape") if kind.labels == "keypoints" else None
    if not file.is_file():
        return _Labels(boxes)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
        for line in lines:
            row = np.array(line.split(), np.float32)
            if shape is not None:
                own = row[5:].reshape(*shape)
                points.append(own if shape[1] == 3 else np.insert(own, 2, 1, axis=1))
                row = row[:5]
            elif row.size > 5:
                polygons.append(row[1:].reshape(-1, 2))
                row = np.concatenate([row[:1], segments2boxes(polygons[-1:])[0]])
            if row.size:
                boxes = np.concatenate([boxes, row.reshape(1, 5)])
    except ValueError:
        return None
    known = set(boxes[:, 0].tolist()) <= set(names)
    return _Labels(boxes, polygons, np.stack(points) if points else None) if known else None


def _read(file: Path, labels: _Labels, kind: Kind) -> Example | None:
    pixels = imread(file)
    if pixels is None:
        return None
    height, width = pixels.shape[:2]
    rows = labels.boxes
    classes, certain = torch.from_numpy(rows[:, :1]), torch.ones(len(rows), 1)
    corners = torch.from_numpy(xywhn2xyxy(rows[:, 1:], w=width, h=height))
    boxes = torch.cat([corners, certain, classes], dim=1)
    size = np.array([width, height], np.float32)
    shapes: dict[str, torch.Tensor] = {}
    if kind.labels == "folders":
        shapes["probs"] = functional.one_hot(classes.long().flatten(), int(classes) + 1)[0].float()
    elif labels.points is not None:
        shapes["keypoints"] = torch.from_numpy(labels.points * np.array([*size, 1], np.float32))
    elif kind.labels == "polygons" and len(labels.polygons) == len(rows):
        masks = np.zeros((len(rows), height, width), np.uint8)
        for mask, polygon in zip(masks, labels.polygons, strict=True):
            cv2.fillPoly(mask, [np.rint(polygon * size).astype(np.int32)], 1)
        shapes["masks"] = torch.from_numpy(masks)
    elif kind.labels == "corners":
        turned = [xyxyxyxy2xywhr((p * size).reshape(1, -1)) for p in labels.polygons]
        places = torch.from_numpy(np.concatenate([*turned, np.zeros((0, 5), np.float32)]))
        shapes["obb"] = torch.cat([places, certain, classes], dim=1).float()
    return Example(file, pixels, boxes, shapes)
