# SPDX-License-Identifier: AGPL-3.0-or-later
"""Choice of labelled images of a data set for the report; the data set's folder stays unchanged."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from ultralytics.data.utils import check_det_dataset, img2label_paths
from ultralytics.utils.ops import segments2boxes, xywhn2xyxy
from ultralytics.utils.patches import imread

from detprune.errors import InputError
from detprune.files import load_yaml
from detprune_yolo.data.images import image_files

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
    """

    file: Path
    pixels: Pixels
    boxes: torch.Tensor


def data_set(data_yaml: Path, split: str) -> dict[str, Any]:
    """Return a data set as Ultralytics describes it, its paths made absolute.

    Raises:
        InputError: the file is not there or unusable, or has no such split.
    """
    if not data_yaml.is_file():  # Ultralytics would try to download it
        raise InputError(f"there is no data set file {data_yaml}; name an existing .yaml file")
    load_yaml(data_yaml, strict=False)  # limits the file's size, and names the line of an error
    try:
        data: dict[str, Any] = check_det_dataset(str(data_yaml), autodownload=False)
    except (OSError, SyntaxError, TypeError, ValueError, KeyError) as error:
        raise InputError(f"{data_yaml} cannot be used as a data set: {error}") from error
    known = [name for name in _SPLITS if data.get(name)]
    if split not in known:
        raise InputError(
            f"the data set {data_yaml} has no split {split!r}; it has: {', '.join(known)}"
        )
    return data


def choose_examples(data: Mapping[str, Any], split: str, images: int, seed: int) -> list[Example]:
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
            labels = _labels(file, data["names"])
            if labels is not None:
                candidates.append((file, labels))
        candidates.sort(key=lambda c: (len(c[1]) == 0, abs(len(c[1]) - _OBJECTS)))
        chosen += next(([e] for c in candidates if (e := _read(*c)) is not None), [])
    return chosen


def _labels(image: Path, names: Mapping[int, str]) -> npt.NDArray[np.float32] | None:
    """Return (objects, 5): class, then centre and size over the image's; None if unusable.

    Not read by Ultralytics' ``verify_image_label``, which also rewrites JPEG files that are cut off.
    """
    file = Path(img2label_paths([str(image)])[0])
    boxes = np.zeros((0, 5), np.float32)
    if not file.is_file():
        return boxes
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
        for line in lines:
            row = np.array(line.split(), np.float32)
            if row.size > 5:
                polygon = row[1:].reshape(-1, 2)
                row = np.concatenate([row[:1], segments2boxes([polygon])[0]])
            if row.size:
                boxes = np.concatenate([boxes, row.reshape(1, 5)])
    except ValueError:
        return None
    return boxes if set(boxes[:, 0].tolist()) <= set(names) else None


def _read(file: Path, labels: npt.NDArray[np.float32]) -> Example | None:
    pixels = imread(file)
    if pixels is None:
        return None
    height, width = pixels.shape[:2]
    corners = torch.from_numpy(xywhn2xyxy(labels[:, 1:], w=width, h=height))
    boxes = torch.cat([corners, torch.ones(len(labels), 1), torch.from_numpy(labels[:, :1])], dim=1)
    return Example(file, pixels, boxes)
