# SPDX-License-Identifier: AGPL-3.0-or-later
"""A small synthetic detection set: six shapes on textured backgrounds.

It needs no download and is the same on every machine: each image has a random generator of its own,
seeded by (seed, split, index), shapes are rasterised in integers and files are lossless. So image k
of a split does not depend on how many images the set has.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from detprune.errors import InputError
from detprune.files.atomic import atomic
from detprune.files.folders import SET, complete_folder, output_folder, user_cache
from detprune_yolo.data.shapes import CLASSES, LARGEST, MOST_OBJECTS, SMALLEST, draw_image

_EASIER = ("classes", "objects", "smallest")
_FORMAT = 2  # raise it with every change in what is drawn or how it is stored
_YAML = "shapes.yaml"
_SPLITS = {
    "train": 0,
    "val": 100_000_000,
    "test": 200_000_000,
}  # split → offset of its images' numbers, so that the splits share no number


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
    return draw(spec, user_cache() / "drawn" / name)


def draw(spec: DrawnSet, folder: Path) -> Path:
    """Write the set into ``folder``, or reuse it there; return the path of its data yaml.

    Layout: ``shapes.yaml``, ``set.json``, ``images/<split>/<id>.png``,
    ``labels/<split>/<id>.txt`` (class cx cy w h, in image sides) and
    ``annotations/instances_<split>.json`` (COCO, pixels, category id = class + 1). An image's
    COCO id is its base name. The folder appears under its name only when it is complete.

    Raises:
        InputError: ``folder`` holds anything else, or such a set with files missing.
    """
    folder = output_folder(folder)
    complete_folder(folder, lambda: _reusable(spec, folder), lambda new: _write(spec, new))
    description = yaml.safe_dump(
        {
            "path": str(folder),
            **{split: f"images/{split}" for split in spec.splits},
            "names": dict(enumerate(CLASSES[: spec.classes])),
        },
        sort_keys=False,
    )
    file = folder / _YAML
    # The folder may have been moved since; Ultralytics would then look in the old place.
    if not file.is_file() or file.read_text(encoding="utf-8") != description:
        with atomic(file) as new:
            new.write_text(description, encoding="utf-8")
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
            _, encoded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 6])
            file.write_bytes(encoded.tobytes())
            images.append(
                {"id": number, "file_name": file.name, "width": spec.size, "height": spec.size}
            )
            lines = []
            for box in boxes:
                placed = (box.x + box.w / 2, box.y + box.h / 2, box.w, box.h)
                lines.append(" ".join([str(box.label), *(f"{v / spec.size:.6f}" for v in placed)]))
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": box.label + 1,
                        "bbox": [box.x, box.y, box.w, box.h],
                        "area": box.w * box.h,
                        "iscrowd": 0,
                    }
                )
            (folder / "labels" / split / f"{number:012d}.txt").write_text(
                "".join(f"{line}\n" for line in lines), encoding="utf-8"
            )
        coco = {
            "info": {"description": "detprune drawn shapes", **_identity(spec)},
            "images": images,
            "annotations": annotations,
            "categories": [
                {"id": k, "name": name} for k, name in enumerate(CLASSES[: spec.classes], start=1)
            ],
        }
        (folder / "annotations" / f"instances_{split}.json").write_text(
            json.dumps(coco), encoding="utf-8"
        )
    (folder / SET).write_text(json.dumps(_identity(spec)), encoding="utf-8")


def _identity(spec: DrawnSet) -> dict[str, float]:
    values = {name: value for name, value in asdict(spec).items() if name not in _EASIER}
    return {"format": _FORMAT, **values, **_easier(spec)}


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
    for split, count in spec.splits.items():
        for kind, ending in (("images", "png"), ("labels", "txt")):
            left = sum(1 for _ in (folder / kind / split).glob(f"*.{ending}"))
            if left != count:
                raise InputError(
                    f"{folder / kind / split} holds {left} *.{ending} files of {count}; {way_out}"
                )
    return True
