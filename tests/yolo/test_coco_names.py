"""Ultralytics' predictions and YOLO labels in COCO's terms."""

import math
from typing import Any

import numpy as np
import pytest
from coco_cases import NAMES, changed, perfect, truth, ultralytics

from detprune.errors import InputError
from detprune_yolo.measure.coco import evaluate, from_labels, remap


def test_remap_by_names() -> None:
    mapped = remap(ultralytics(), truth(), NAMES)
    assert mapped == [{**p, "score": 1.0} for p in perfect()]
    assert evaluate(truth(), mapped).map50_95 == 1.0


def test_remap_of_other_numbers() -> None:
    """As COCO's 80 classes with their 91 numbers."""
    found = [{**p, "category_id": {1: 7, 2: 90}[p["category_id"]]} for p in ultralytics()]
    mapped = remap(found, truth(), NAMES, category_ids=[7, 90])
    assert mapped == [{**p, "score": 1.0} for p in perfect()]
    with pytest.raises(InputError, match="2 names but 1 category_ids"):
        remap(found, truth(), NAMES, category_ids=[7])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            (1, "file_name"),
            "c.jpg",
            "prediction 1: file_name 'c.jpg' is no image .*'5.jpg', 'b.jpg'",
        ),
        ((1, "file_name"), ..., "prediction 1 has no file_name"),
        ((1, "category_id"), 3, "category_id 3 stands for none of the 2 classes.* 1, 2;"),
        ((1, "category_id"), 0, "category_id 0 stands for none of the 2 classes"),
        ((1, "category_id"), "1", "prediction 1: category_id is '1', which is no whole number"),
    ],
)
def test_remap_of_bad_predictions(path: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        remap(changed(ultralytics(), *path, to=value), truth(), NAMES)


def test_remap_to_annotations_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"the classes 'cat' are not in .* are 'dog', 'car'; give"):
        remap([], truth(), {0: "car", 1: "cat"})
    with pytest.raises(InputError, match="class names 'car' occur twice"):
        remap([], changed(truth(), "categories", 0, "name", to="car"), {0: "car"})
    with pytest.raises(InputError, match="class names 'car' occur twice"):
        remap([], truth(), {0: "car", 1: "car"})
    with pytest.raises(InputError, match=r"same base name, 'val/5.jpg' and 'train/5.jpg'"):
        remap([], changed(truth(), "images", 1, "file_name", to="train/5.jpg"), NAMES)
    with pytest.raises(InputError, match="images entry 1 of the annotations has no file_name"):
        remap([], changed(truth(), "images", 1, "file_name", to=...), NAMES)


# --------------------------------------------------------------------------------- from labels


def test_labels_give_the_same_boxes() -> None:
    built = from_labels(
        [("val/5.jpg", 200, 400), ("val/b.jpg", 160, 160)],
        [
            np.array([[0, 0.3, 0.15, 0.5, 0.25]], np.float32),
            np.array([[0, 100 / 160, 100 / 160, 0.625, 0.625], [1, 0.0625, 0.0625, 0.125, 0.125]]),
        ],
        NAMES,
    )
    assert built["categories"] == [{"id": 1, "name": "car"}, {"id": 2, "name": "dog"}]
    assert built["images"][0] == {"id": 1, "file_name": "val/5.jpg", "width": 200, "height": 400}
    for annotation, expected in zip(built["annotations"], truth()["annotations"], strict=True):
        assert annotation["bbox"] == pytest.approx(expected["bbox"], abs=1e-4)
        assert annotation["area"] == pytest.approx(math.prod(expected["bbox"][2:]), rel=1e-5)
    for found in (ultralytics(), ultralytics()[1:], []):
        mine = evaluate(built, remap(found, built, NAMES))
        assert mine == evaluate(truth(), remap(found, truth(), NAMES))


def test_boxes_end_at_the_image() -> None:
    built = from_labels([("a.jpg", 100, 50)], [np.array([[0, 1.0, 0.0, 0.2, 0.4]])], NAMES)
    assert built["annotations"][0]["bbox"] == pytest.approx([90, 0, 10, 10])
    assert built["annotations"][0]["area"] == pytest.approx(100)


def test_images_without_objects() -> None:
    built = from_labels([("a.jpg", 100, 50)], [np.zeros((0, 5))], NAMES)
    assert built["annotations"] == []
    assert len(built["images"]) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((2, 4)), r"the labels of a.jpg have the shape \(2, 4\); it is \(n, 5\)"),
        (np.array([[0, 0.5, math.nan, 0.1, 0.1]]), "not finite, or a negative size"),
        (np.array([[0, 0.5, 0.5, -0.1, 0.1]]), "not finite, or a negative size"),
        (np.array([[2, 0.5, 0.5, 0.1, 0.1]]), r"have class 2.0; known: 0, 1"),
        (np.array([[0.5, 0.5, 0.5, 0.1, 0.1]]), r"have class 0.5; known: 0, 1"),
    ],
)
def test_bad_labels(rows: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_labels([("a.jpg", 100, 50)], [rows], NAMES)


def test_bad_images() -> None:
    with pytest.raises(InputError, match="there are 1 images but 0 arrays of labels"):
        from_labels([("a.jpg", 100, 50)], [], NAMES)
    with pytest.raises(InputError, match=r"same base name, 'one/a.jpg' and 'two/a.jpg'"):
        from_labels([("one/a.jpg", 9, 9), ("two/a.jpg", 9, 9)], [np.zeros((0, 5))] * 2, NAMES)
