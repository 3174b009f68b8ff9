"""COCO scores against values worked out by hand and against pycocotools' own way in."""

import json
import math
from typing import Any

import pytest
from coco_cases import NAMES, changed, perfect, truth
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detprune.errors import InputError
from detprune_yolo.measure.coco import evaluate, remap

# ------------------------------------------------------------------------------------- scores


def test_perfect_predictions() -> None:
    """Among them one whose annotation has the id 0, which pycocotools takes for a miss."""
    scores = evaluate(truth(), perfect())
    assert (scores.map50, scores.map50_95) == (1.0, 1.0)
    assert (scores.small, scores.medium, scores.large) == (pytest.approx(1), None, 1.0)
    assert (scores.images, scores.annotations, scores.predictions) == (2, 3, 3)


def test_half_of_the_objects_found() -> None:
    """Recall stops at 1/2 for cars: 51 of the 101 recall levels have precision 1. No dog: 0."""
    scores = evaluate(truth(), perfect()[:1])
    assert scores.map50 == pytest.approx(51 / 101 / 2)
    assert scores.small == 0.0


def test_a_false_positive_before_the_true_ones() -> None:
    wrong = {"image_id": 5, "category_id": 20, "bbox": [500, 500, 100, 100], "score": 0.9}
    # cars: precision 1/2 after the first, 2/3 after the second, which is the best to the right
    assert evaluate(truth(), [*perfect(), wrong]).map50 == pytest.approx((2 / 3 + 1) / 2)
    assert evaluate(truth(), [*perfect(), {**wrong, "score": 0.1}]).map50 == 1.0


def test_an_overlap_of_0_62_counts_up_to_0_6() -> None:
    boxes = [[10, 10, 62, 100], [50, 50, 62, 100], [0, 0, 12.4, 20]]
    found = [{**p, "bbox": box} for p, box in zip(perfect(), boxes, strict=True)]
    scores = evaluate(truth(), found)
    assert scores.map50 == 1.0
    assert scores.map50_95 == pytest.approx(3 / 10)  # 0.5, 0.55 and 0.6 of ten


def test_no_predictions_score_zero() -> None:
    scores = evaluate(truth(), [])
    assert (scores.map50, scores.map50_95, scores.small, scores.medium) == (0.0, 0.0, 0.0, None)
    assert (scores.images, scores.annotations, scores.predictions) == (2, 3, 0)


def test_only_the_images_asked_for() -> None:
    scores = evaluate(truth(), perfect()[:1], image_ids=[5])
    assert scores.map50 == pytest.approx(1)
    assert (scores.images, scores.annotations, scores.predictions) == (1, 1, 1)
    assert evaluate(truth(), perfect()[:1], image_ids=[9]).map50 == 0.0


def test_crowds_are_neither_missed_nor_false() -> None:
    crowd = changed(truth(), "annotations", 2, "iscrowd", to=1)
    scores = evaluate(crowd, perfect())
    assert (scores.map50, scores.annotations) == (1.0, 2)
    assert evaluate(crowd, perfect()[:2]).map50 == 1.0


def test_the_given_area_decides_the_size() -> None:
    """COCO's areas are those of the outlines, not of the boxes."""
    scores = evaluate(changed(truth(), "annotations", 2, "area", to=2000.0), perfect())
    assert (scores.small, scores.medium) == (None, pytest.approx(1))


def test_nothing_is_printed_or_changed(capfd: pytest.CaptureFixture[str]) -> None:
    annotations, predictions = truth(), perfect()
    evaluate(annotations, predictions)
    remap([{**p, "file_name": "5.jpg", "category_id": 1} for p in predictions], annotations, NAMES)
    assert annotations == truth()
    assert predictions == perfect()
    assert capfd.readouterr() == ("", "")


boxes = st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 120)] * 2).map(list)
objects = st.tuples(st.sampled_from([5, 9]), st.sampled_from([20, 30]), boxes)


@settings(max_examples=30)
@given(
    found=st.lists(objects, min_size=1, max_size=6),
    guesses=st.lists(st.tuples(objects, st.integers(0, 4)), min_size=1, max_size=12),
)
def test_as_pycocotools_by_files(
    found: list[Any], guesses: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The documented way: COCO of a file, loadRes, COCOeval; with ties between the scores."""
    keys = ("image_id", "category_id", "bbox")
    annotations = truth()
    annotations["annotations"] = [
        {"id": n, "iscrowd": 0, "area": o[2][2] * o[2][3], **dict(zip(keys, o, strict=True))}
        for n, o in enumerate(found, 1)
    ]
    predictions = [{**dict(zip(keys, o, strict=True)), "score": s / 4} for o, s in guesses]
    scores = evaluate(annotations, predictions)
    file = tmp_path_factory.mktemp("coco") / "a.json"
    file.write_text(json.dumps(annotations))
    reference = COCO(file)
    evaluation = COCOeval(reference, reference.loadRes(predictions), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    sizes = [-1 if size is None else size for size in (scores.small, scores.medium, scores.large)]
    assert [scores.map50_95, scores.map50, *sizes] == [
        *evaluation.stats[:2],
        *evaluation.stats[3:6],
    ]


# --------------------------------------------------------------------------------- bad inputs


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((0, "score"), ..., "prediction 0 has no score; it has: 'image_id', 'category_id', 'bbox'"),
        ((1, "bbox"), ..., "prediction 1 has no bbox"),
        ((1, "image_id"), ..., "prediction 1 has no image_id"),
        (
            (1, "image_id"),
            "b",
            "prediction 1: image_id 'b' is a text.*give each prediction its file",
        ),
        ((1, "image_id"), 6, "prediction 1: image_id 6 is no image of the annotations.* 5, 9;"),
        ((1, "image_id"), True, "image_id True is no image"),
        ((1, "image_id"), 9.0, "image_id 9.0 is no image"),
        ((1, "image_id"), [9], r"image_id \[9\] is no image"),
        ((2, "category_id"), 2, "category_id 2 is no category.* 20, 30; map the classes by name"),
        (
            (2, "bbox"),
            [1, 2, 3],
            r"prediction 2: bbox is \[1, 2, 3\]; it is \[x, y, width, height\]",
        ),
        ((2, "bbox"), "1 2 3 4", "bbox is '1 2 3 4'"),
        ((2, "bbox"), [1, 2, 3, None], "bbox is None, which is no finite number"),
        ((2, "bbox"), [1, 2, math.nan, 4], "bbox is nan, which is no finite number"),
        ((2, "bbox"), [1, 2, 10**400, 4], "which is no finite number"),
        (
            (2, "bbox"),
            [9, 9, 3, -4],
            r"bbox \[9.0, 9.0, 3.0, -4.0\] has a negative width or height",
        ),
        ((2, "score"), math.inf, "prediction 2: score is inf, which is no finite number"),
        ((2, "score"), "0.5", "prediction 2: score is '0.5', which is no finite number"),
        ((2,), [1, 2], r"entry 2 of the predictions is \[1, 2\]; give a list of {image_id"),
    ],
)
def test_bad_predictions(path: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(truth(), changed(perfect(), *path, to=value))


@pytest.mark.parametrize("predictions", [{"annotations": []}, "text", None, 3])
def test_predictions_that_are_no_list(predictions: Any) -> None:
    with pytest.raises(InputError, match=r"the predictions are no list but .*; give a list of"):
        evaluate(truth(), predictions)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("images",), ..., "the annotations have no 'images' but annotations, categories"),
        (("annotations",), ..., "the annotations have no 'annotations' but"),
        (("categories",), ..., "the annotations have no 'categories' but"),
        (("images",), {}, "'images' of the annotations are no list but dict"),
        (("images", 1, "id"), 5, "images entry 1 of the annotations: the id 5 occurs twice"),
        (("images", 1, "id"), "9", "images entry 1 .*: id is '9', which is no whole number"),
        (("categories", 0, "id"), ..., "categories entry 0 of the annotations has no id"),
        (("annotations", 1, "image_id"), 1, "annotation 1: image_id 1 is no image"),
        (("annotations", 1, "category_id"), 1, "annotation 1: category_id 1 is no category"),
        (("annotations", 1, "bbox"), [0, 0, -1, 2], "annotation 1: bbox .* negative width"),
        (("annotations", 1, "area"), math.nan, "annotation 1: area is nan"),
        (("annotations", 1, "iscrowd"), 2, "annotation 1: iscrowd is 2; it is 0 or 1"),
        (("annotations",), [], "no object in the 2 images that are evaluated"),
    ],
)
def test_bad_annotations(path: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(changed(truth(), *path, to=value), perfect())


def test_bad_image_ids() -> None:
    with pytest.raises(InputError, match=r"image_ids 6 are no images of the annotations.* 5, 9"):
        evaluate(truth(), [], image_ids=[5, 6])
    with pytest.raises(InputError, match="no object in the 0 images"):
        evaluate(truth(), [], image_ids=[])
