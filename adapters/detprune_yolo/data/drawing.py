# SPDX-License-Identifier: AGPL-3.0-or-later
"""A small synthetic data set: six shapes on textured backgrounds, with the labels of a task.

It needs no download and is the same on every machine: each image has a random generator of its own,
seeded by (seed, split, index), shapes are rasterised in integers and files are lossless. So image k
of a split does not depend on how many images the set has.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import yaml

from detprune.errors import InputError, unknown
from detprune.files.atomic import atomic
from detprune.files.folders import SET, complete_folder, output_folder, user_cache
from detprune.files.yaml import load_yaml
from detprune_yolo.data.labels import MIRRORED, POINTS, corners, keypoints, polygon
from detprune_yolo.data.shapes import (
    CLASSES,
    LARGEST,
    MOST_OBJECTS,
    SMALLEST,
    Box,
    Image,
    draw_image,
)

_EASIER = ("classes", "objects", "smallest")
_FORMAT = 2  # raise it with every change in what is drawn or how it is stored
_YAML = "shapes.yaml"
_SPLITS = {
    "train": 0,
    "val": 100_000_000,
    "test": 200_000_000,
}  # split → offset of its images' numbers, so that the splits share no number


DrawnTask = Literal["detect", "segment", "pose", "obb", "classify"]


@dataclass(frozen=True)
class DrawnSet:
    """Settings of a drawn data set: numbers of images, their size, the seed, and the difficulty.

    Attributes:
        train, val, test: number of images of each split.
        size: side of the images in pixels.
        seed: another seed draws other images.
        classes: number of classes; they are the first of the six shapes.
        objects: most objects in an image.
        smallest: longer side of the smallest object, as a share of the image's side; the largest object has 0.45.
        task: Ultralytics' task that the labels are for; left out, in a recipe it is the network's, else detection.

    Raises:
        InputError: a value out of range.
    """

    train: int = 400
    val: int = 100
    size: int = 160
    seed: int = 0
    test: int = 0
    classes: int = len(CLASSES)
    objects: int = MOST_OBJECTS
    smallest: float = SMALLEST
    task: DrawnTask | None = None

    def __post_init__(self) -> None:
        limits = {
            "train": (1, 10**6),
            "val": (1, 10**6),
            "size": (64, 1024),
            "seed": (0, 2**32),
            "test": (0, 10**6),
            "classes": (1, len(CLASSES)),
            "objects": (1, MOST_OBJECTS),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise InputError(
                    f"{name} of a drawn data set is {value!r}; choose a whole number from {low} to {high}"
                )
        if not isinstance(self.smallest, int | float) or not SMALLEST <= self.smallest <= LARGEST:
            raise InputError(
                f"smallest of a drawn data set is {self.smallest!r}; choose a number from {SMALLEST} to {LARGEST}"
            )
        if self.task is not None and self.task not in get_args(DrawnTask):
            raise unknown("task of a drawn data set", self.task, get_args(DrawnTask))
        if self.task == "classify" and self.objects != MOST_OBJECTS:
            raise InputError(
                f"objects of a drawn data set is {self.objects}, but an image for classification has one object; leave "
                "objects out"
            )

    @property
    def splits(self) -> dict[str, int]:
        """Splits that have images → number of images."""
        counts = {"train": self.train, "val": self.val, "test": self.test}
        return {split: count for split, count in counts.items() if count}


def cached(spec: DrawnSet) -> Path:
    """Draw a set into the user's cache folder, or reuse it there; return its data yaml."""
    counts = "-".join(map(str, spec.splits.values()))
    name = f"shapes-{_FORMAT}-{counts}-{spec.size}px-seed{spec.seed}"
    if easier := _easier(spec):
        name += "-" + "-".join(f"{key}{value:g}" for key, value in easier.items())
    if spec.task not in (None, "detect"):
        name += f"-{spec.task}"
    return draw(spec, user_cache() / "drawn" / name)


def draw(spec: DrawnSet, folder: Path) -> Path:
    """Write the set into ``folder``, or reuse it there; return the path of its data yaml, or of a set of classes.

    Layout: ``shapes.yaml``, ``set.json``, ``images/<split>/<id>.png``,
    ``labels/<split>/<id>.txt`` (class cx cy w h, in image sides) and
    ``annotations/instances_<split>.json`` (COCO, pixels, category id = class + 1). An image's
    COCO id is its base name. For segmentation labels are polygons (class x1 y1 …), for poses boxes and key points,
    for oriented boxes four corners. For classification images lie in ``<split>/<class>/<id>.png``, and there are no
    labels. The folder appears under its name only when it is complete.

    Raises:
        InputError: ``folder`` holds anything else, or such a set with files missing or with another ``shapes.yaml``.
    """
    folder = output_folder(folder)
    write = _write_folders if spec.task == "classify" else _write
    complete_folder(folder, lambda: _reusable(spec, folder), lambda new: write(spec, new))
    if spec.task == "classify":
        return folder
    names = dict(enumerate(CLASSES[: spec.classes]))
    content: dict[str, Any] = {
        "path": str(folder),
        **{split: f"images/{split}" for split in spec.splits},
        "names": names,
    }
    if spec.task == "pose":
        content["kpt_shape"], content["flip_idx"] = [len(POINTS), 3], list(MIRRORED)
        content["kpt_names"] = {number: list(POINTS) for number in names}
    file = folder / _YAML
    found = load_yaml(file) if file.exists() else content | {"path": None}
    if not isinstance(found, dict) or found | {"path": str(folder)} != content:
        raise InputError(
            f"{file} was changed since it was drawn; give the changed one another name, and this one is written again"
        )
    if found != content:  # new, or moved since: Ultralytics would look in the old place
        with atomic(file) as new:
            new.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return file


def _write(spec: DrawnSet, folder: Path) -> None:
    (folder / "annotations").mkdir(parents=True)
    for split, count in spec.splits.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(count):
            number = _SPLITS[split] + index + 1
            rng = np.random.default_rng([spec.seed, list(_SPLITS).index(split), index])
            picture, boxes = draw_image(rng, spec.size, spec.classes, spec.objects, spec.smallest)
            file = folder / "images" / split / f"{number:012d}.png"
            _write_picture(file, picture)
            images.append(
                {"id": number, "file_name": file.name, "width": spec.size, "height": spec.size}
            )
            lines = []
            for box in boxes:
                row, shape = _label(box, spec)
                lines.append(" ".join([str(box.label), *row]))
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": box.label + 1,
                        "bbox": [box.x, box.y, box.w, box.h],
                        "area": box.w * box.h,
                        "iscrowd": 0,
                        **shape,
                    }
                )
            (folder / "labels" / split / f"{number:012d}.txt").write_text(
                "".join(f"{line}\n" for line in lines), encoding="utf-8"
            )
        points = {"keypoints": list(POINTS), "skeleton": []} if spec.task == "pose" else {}
        coco = {
            "info": {"description": "detprune drawn shapes", **_identity(spec)},
            "images": images,
            "annotations": annotations,
            "categories": [
                {"id": k, "name": name, **points}
                for k, name in enumerate(CLASSES[: spec.classes], start=1)
            ],
        }
        (folder / "annotations" / f"instances_{split}.json").write_text(
            json.dumps(coco), encoding="utf-8"
        )
    (folder / SET).write_text(json.dumps(_identity(spec)), encoding="utf-8")


def _write_folders(spec: DrawnSet, folder: Path) -> None:
    """Write images of one object each into the folders of their classes, which come in turn."""
    for split, count in spec.splits.items():
        for name in CLASSES[: spec.classes]:
            (folder / split / name).mkdir(parents=True)
        for index in range(count):
            label = index % spec.classes
            rng = np.random.default_rng([spec.seed, list(_SPLITS).index(split), index])
            boxes: list[Box] = []
            while not boxes:
                picture, boxes = draw_image(rng, spec.size, spec.classes, 1, spec.smallest, label)
            number = _SPLITS[split] + index + 1
            _write_picture(folder / split / CLASSES[label] / f"{number:012d}.png", picture)
    (folder / SET).write_text(json.dumps(_identity(spec)), encoding="utf-8")


def _write_picture(file: Path, picture: Image) -> None:
    _, encoded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    file.write_bytes(encoded.tobytes())


def _label(box: Box, spec: DrawnSet) -> tuple[list[str], dict[str, Any]]:
    """What a label line has behind the class, in image sides; and what COCO's annotation has more, in pixels."""
    upright = [box.x + box.w / 2, box.y + box.h / 2, box.w, box.h]
    if spec.task == "segment":
        outline = polygon(box)
        shape = {
            "segmentation": [[round(v, 3) for v in outline.ravel().tolist()]],
            "area": int(box.seen.sum()),
        }
        return _shares(outline.ravel().tolist(), spec.size), shape
    if spec.task == "pose":
        points = keypoints(box)
        row = _shares(upright, spec.size)
        for x, y, visible in points:
            row += [*_shares([x, y], spec.size), f"{visible:.0f}"]
        flat = [round(v, 3) for v in points.ravel().tolist()]
        return row, {"keypoints": flat, "num_keypoints": int((points[:, 2] > 0).sum())}
    if spec.task == "obb":
        turned = np.clip(corners(box), 0, spec.size).ravel().tolist()
        return _shares(turned, spec.size), {"segmentation": [[round(v, 3) for v in turned]]}
    return _shares(upright, spec.size), {}


def _shares(values: Iterable[float], size: int) -> list[str]:
    return [f"{value / size:.6f}" for value in values]


def _identity(spec: DrawnSet) -> dict[str, Any]:
    values = {n: v for n, v in asdict(spec).items() if n not in (*_EASIER, "task")}
    task = {} if spec.task in (None, "detect") else {"task": spec.task}
    return {"format": _FORMAT, **values, **_easier(spec), **task}


def _easier(spec: DrawnSet) -> dict[str, float]:
    """The settings that differ from the defaults and so make the set easier; earlier versions stored none of them."""
    return {
        name: value
        for name, value in asdict(spec).items()
        if name in _EASIER and value != getattr(DrawnSet, name)
    }


def _reusable(spec: DrawnSet, folder: Path) -> bool:
    """Whether the folder holds this set already; False if the folder is new or empty."""
    way_out = "remove it, or name another folder"
    if folder.is_dir() and not any(folder.iterdir()):
        return False
    try:
        found = json.loads((folder / SET).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        if not folder.exists():
            return False
        raise InputError(
            f"{folder} holds something that is not a drawn data set; {way_out}"
        ) from None
    if found != _identity(spec):
        raise InputError(
            f"{folder} holds another drawn data set ({found}), not {_identity(spec)}; {way_out}"
        )
    kinds = (("images", "png"), ("labels", "txt"))
    for split, count in spec.splits.items():
        places = [(folder / kind / split, f"*.{ending}") for kind, ending in kinds]
        if spec.task == "classify":
            places = [(folder / split, "*/*.png")]
        for place, pattern in places:
            left = sum(1 for _ in place.glob(pattern))
            if left != count:
                raise InputError(f"{place} holds {left} {pattern} files of {count}; {way_out}")
    return True
