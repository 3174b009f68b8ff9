"""A small COCO ground truth, and predictions that match it exactly."""

import copy
from typing import Any

NAMES = {0: "car", 1: "dog"}


def truth() -> dict[str, Any]:
    """Two images with a car each, of 100 × 100 pixels, and one small dog."""
    return {
        "images": [{"id": 5, "file_name": "val/5.jpg"}, {"id": 9, "file_name": "val/b.jpg"}],
        "annotations": [
            {"id": 0, "image_id": 5, "category_id": 20, "bbox": [10, 10, 100, 100]},
            {"id": 1, "image_id": 9, "category_id": 20, "bbox": [50, 50, 100, 100]},
            {"id": 2, "image_id": 9, "category_id": 30, "bbox": [0, 0, 20, 20]},
        ],
        "categories": [{"id": 30, "name": "dog"}, {"id": 20, "name": "car"}],
    }


def perfect() -> list[dict[str, Any]]:
    keys = ("image_id", "category_id", "bbox")
    return [{**{k: a[k] for k in keys}, "score": 0.5} for a in truth()["annotations"]]


def changed(value: Any, *path: Any, to: Any) -> Any:
    """A copy with one entry replaced; ``...`` removes it."""
    new = copy.deepcopy(value)
    inner = new
    for key in path[:-1]:
        inner = inner[key]
    if to is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return new


def ultralytics() -> list[dict[str, Any]]:
    """Perfect predictions, as Ultralytics writes them: 5 is the file's name, classes are 1 and 2."""
    return [
        {"image_id": 5, "file_name": "5.jpg", "category_id": 1, "bbox": [10, 10, 100, 100], "score": 1},
        {"image_id": "b", "file_name": "b.jpg", "category_id": 1, "bbox": [50, 50, 100, 100], "score": 1},
        {"image_id": "b", "file_name": "b.jpg", "category_id": 2, "bbox": [0, 0, 20, 20], "score": 1},
    ]  # fmt: skip
