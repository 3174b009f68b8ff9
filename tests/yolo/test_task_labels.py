"""Labels of every task: drawn sets, COCO numbers of masks and key points, and data sets of another task."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from task_networks import SIZE, drawn, small_network

import detprune as dp

# isort: split
from detprune_yolo.data import labels, shapes
from detprune_yolo.data.check import check_data
from detprune_yolo.data.drawing import DrawnSet, draw
from detprune_yolo.kinds import CLASSIFY, OBB, POSE, SEGMENT
from detprune_yolo.measure.coco import evaluate, from_labels
from detprune_yolo.measure.validation import validate


@pytest.mark.parametrize("task", ["segment", "pose", "obb", "classify"])
def test_drawn_sets_are_the_same_every_time_and_pass_the_check(task: Any, tmp_path: Path) -> None:
    spec = DrawnSet(train=7, val=3, size=SIZE, seed=4, task=task)
    digests = []
    for name in ("a", "b"):
        found = draw(spec, tmp_path / name)
        assert draw(spec, tmp_path / name) == found  # reused
        files = sorted(
            p for p in (tmp_path / name).rglob("*") if p.suffix in (".png", ".txt", ".json")
        )
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert digests[0] == digests[1]
    kind = next(k for k in (SEGMENT, POSE, OBB, CLASSIFY) if k.task == task)
    checked = check_data(found, kind=kind)
    assert {split: len(images) for split, images in checked.images.items()} == {
        "train": 7,
        "val": 3,
    }
    with pytest.raises(dp.InputError, match="another drawn data set"):
        draw(DrawnSet(train=7, val=3, size=SIZE, seed=5, task=task), tmp_path / "a")


def test_the_images_are_those_of_detection(tmp_path: Path) -> None:
    pictures = []
    for task in (None, "segment", "pose", "obb"):
        draw(DrawnSet(train=2, val=1, size=SIZE, task=task), tmp_path / str(task))  # type: ignore[arg-type]
        files = sorted((tmp_path / str(task) / "images").rglob("*.png"))
        pictures.append([file.read_bytes() for file in files])
    assert all(own == pictures[0] for own in pictures)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools
def test_labels_fit_what_is_seen() -> None:
    for index in range(25):
        for box in shapes.draw_image(np.random.default_rng(index), 96)[1]:
            outline = labels.polygon(box)
            runs = run_lengths.frPyObjects([outline.ravel().tolist()], 96, 96)
            mask = run_lengths.decode(run_lengths.merge(runs)).astype(bool)
            assert (mask & box.seen).sum() > 0.93 * (mask | box.seen).sum()
            points = labels.keypoints(box)
            inside = points[points[:, 2] > 0]
            assert ((inside[:, :2] >= 0) & (inside[:, :2] < 96)).all()
            for x, y, visible in points[1:]:
                if visible == 2:  # on the edge of what is seen
                    near = box.seen[
                        max(int(y) - 2, 0) : int(y) + 3, max(int(x) - 2, 0) : int(x) + 3
                    ]
                    assert near.any()
            a, b, c, d = labels.corners(box)
            np.testing.assert_allclose(a + c, b + d)  # a rectangle
            assert abs((b - a) @ (d - a)) < 1e-6
            rows, columns = np.nonzero(box.seen)
            area = np.linalg.norm(b - a) * np.linalg.norm(d - a)
            upright = (np.ptp(columns) + 1) * (np.ptp(rows) + 1)
            assert len(rows) <= area + 1e-6 <= upright + 2e-6


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools
def test_coco_reads_polygons_and_key_points() -> None:
    for task in ("segment", "pose"):
        file = drawn(task).parent / "annotations" / "instances_val.json"
        coco = COCO(str(file))
        found = coco.loadAnns(coco.getAnnIds())
        if task == "segment":
            for entry in found:
                assert (
                    abs(int(coco.annToMask(entry).sum()) - entry["area"]) < 0.15 * entry["area"] + 4
                )
        else:
            assert all(len(entry["keypoints"]) == 15 for entry in found)
            assert coco.loadCats(1)[0]["keypoints"] == list(labels.POINTS)


IMAGES = [("a.png", 40, 20)]
ROW = np.array([[0, 0.5, 0.5, 0.5, 0.5]])
SQUARE = np.array([[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]])
POINTS = np.array([[[0.3, 0.3, 2], [0.5, 0.5, 1], [0, 0, 0]]])
BOX = {"image_id": 1, "category_id": 1, "bbox": [10, 5, 20, 10], "score": 0.9}


def runs(mask: Any) -> dict[str, Any]:
    found = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": found["size"], "counts": found["counts"].decode()}


def test_masks_are_compared_as_masks() -> None:
    truth = from_labels(IMAGES, [ROW], {0: "x"}, polygons=[[SQUARE]])
    whole = np.zeros((20, 40), bool)
    whole[5:15, 10:30] = True
    half = whole.copy()
    half[:, 20:] = False
    for mask, expected in ((whole, 1.0), (half, 0.0)):  # half of it: an IoU of 0.5, less the edge
        found = [{**BOX, "segmentation": runs(mask)}]
        strict = evaluate(truth, found, kind="segm").map50_95
        assert strict == pytest.approx(expected, abs=0.11)
        assert evaluate(truth, found).map50_95 == pytest.approx(1.0)
    with pytest.raises(dp.InputError, match="prediction 0 has no segmentation"):
        evaluate(truth, [BOX], kind="segm")
    with pytest.raises(dp.InputError, match=r"neither polygons .* nor a run-length"):
        evaluate(truth, [{**BOX, "segmentation": runs(np.ones((9, 9)))}], kind="segm")
    with pytest.raises(dp.InputError, match="annotation 0 has no segmentation"):
        evaluate(from_labels(IMAGES, [ROW], {0: "x"}), [BOX], kind="segm")


def test_key_points_are_compared_by_their_distance() -> None:
    truth = from_labels(IMAGES, [ROW], {0: "x"}, keypoints=[POINTS])
    right = [12.0, 6.0, 1.0, 20.0, 10.0, 1.0, 3.0, 3.0, 1.0]  # the last one is not labelled
    sigmas = [1 / 3] * 3
    exact = evaluate(truth, [{**BOX, "keypoints": right}], kind="keypoints", sigmas=sigmas)
    assert exact.map50_95 == pytest.approx(1.0)
    off = [value + 6 * (number % 3 == 0) for number, value in enumerate(right)]
    shifted = evaluate(truth, [{**BOX, "keypoints": off}], kind="keypoints", sigmas=sigmas)
    assert shifted.map50_95 < exact.map50_95
    tight = evaluate(truth, [{**BOX, "keypoints": off}], kind="keypoints", sigmas=[0.02] * 3)
    assert tight.map50_95 < shifted.map50_95
    with pytest.raises(dp.InputError, match="3 key points, but there are sigmas for 17"):
        evaluate(truth, [{**BOX, "keypoints": right}], kind="keypoints")
    with pytest.raises(dp.InputError, match=r"keypoints is \[1, 2\]; it is \[x1, y1, v1"):
        evaluate(truth, [{**BOX, "keypoints": [1, 2]}], kind="keypoints", sigmas=sigmas)


@pytest.mark.parametrize(
    "description", ["yolov8n-seg", "yolo26n-seg", "yolov8n-pose", "yolo11n-obb"]
)
def test_annotations_in_a_file_give_what_the_labels_give(description: str) -> None:
    model = small_network(description)
    task = model.task
    place = drawn(task)
    file = place.parent / "annotations" / "instances_val.json"
    ours = validate(model, place, imgsz=SIZE, batch=2)
    assert ours.images == 4
    assert all(0 <= value <= 1 for value in ours.own.values() if value == value)
    if task != "obb":
        theirs = validate(model, place, imgsz=SIZE, batch=2, annotations=file)
        for kind, scores in ours.by_type.items():
            assert theirs.by_type[kind].map50 == pytest.approx(scores.map50, abs=0.02)
