"""Labels of every task: drawn sets, COCO numbers of masks and key points, and data sets of another task."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from detection_set import DataSet
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from task_networks import NAMES, SIZE, drawn, small_network, start_file
from trainings import OPTIONS

import detprune as dp

# isort: split
from detprune.run.recipe import validate as validate_recipe
from detprune_yolo import RetrainingTrainer
from detprune_yolo.data import labels, shapes
from detprune_yolo.data.check import check_data
from detprune_yolo.data.drawing import DrawnSet, draw
from detprune_yolo.kinds import CLASSIFY, DETECT, OBB, POSE, SEGMENT, Kind
from detprune_yolo.measure.coco import evaluate, from_labels
from detprune_yolo.measure.validation import validate
from detprune_yolo.networks import build_network
from detprune_yolo.recipe import DetectionRecipe, ModelSpec


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
                assert abs(coco.annToMask(entry).sum() - entry["area"]) < 0.15 * entry["area"] + 4
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


def spoiled(root: Path, kind: Kind, rows: str, **keys: Any) -> str:
    data = DataSet(root)
    data.keys.update(keys)
    for split in ("train", "val"):
        for number in range(3):
            data.label(f"{split}/{split}{number}.txt", rows)
    with pytest.raises(dp.InputError) as caught:
        check_data(data.yaml, kind=kind)
    return str(caught.value)


BOXES, OUTLINE = "0 0.5 0.5 0.2 0.2\n", "0 0.1 0.1 0.9 0.1 0.9 0.9\n"
POSE_ROW = "0 0.5 0.5 0.2 0.2 0.5 0.5 2 0.4 0.4 2\n"


@pytest.mark.parametrize(
    ("kind", "rows", "keys", "message"),
    [
        (SEGMENT, BOXES, {}, "a box, but the network learns from polygons"),
        (SEGMENT, OUTLINE + BOXES, {}, "a box, but the network learns from polygons"),
        (SEGMENT, POSE_ROW, {"kpt_shape": [2, 3]}, "a box, but the network learns from polygons"),
        (OBB, BOXES, {}, "an upright box, but the network learns from rotated"),
        (OBB, "0 0.1 0.1 0.9\n", {}, "malformed label lines"),
        (POSE, BOXES, {}, r"has no kpt_shape, so that it is no data set for poses"),
        (POSE, BOXES, {"kpt_shape": [2, 3]}, "whose number of columns does not fit"),
        (POSE, OUTLINE, {"kpt_shape": [2, 3]}, "whose number of columns does not fit"),
        (POSE, POSE_ROW, {"kpt_shape": [2, 2]}, "whose number of columns does not fit"),
        (POSE, POSE_ROW, {"kpt_shape": [2, 4]}, r"kpt_shape is \[2, 4\]; it is"),
        (POSE, POSE_ROW.replace("0.4 2", "0.4 nan"), {"kpt_shape": [2, 3]}, "malformed"),
        (POSE, POSE_ROW, {"kpt_shape": [2, 3], "flip_idx": [0, 2]}, r"flip_idx is \[0, 2\]"),
        (POSE, POSE_ROW, {"kpt_shape": [2, 3], "kpt_oks_sigmas": [1]}, "has 2 positive numbers"),
        (CLASSIFY, BOXES, {}, "a data yaml, but a classifier learns from folders"),
    ],
)
def test_data_of_another_task_are_refused(
    kind: Kind, rows: str, keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    assert re.search(message, spoiled(tmp_path, kind, rows, **keys))


def test_a_detector_takes_polygons_and_poses() -> None:
    for task in ("segment", "pose", "obb"):
        assert check_data(drawn(task), kind=DETECT).labelled["train"] > 0


def test_folders_of_classes(tmp_path: Path) -> None:
    place = draw(DrawnSet(train=6, val=3, size=SIZE, classes=3, task="classify"), tmp_path / "set")
    with pytest.raises(
        dp.InputError, match=r"data\.yaml is the folder .* only a classifier learns"
    ):
        check_data(place, kind=SEGMENT)
    with pytest.raises(dp.InputError, match="it has 5 classes"):
        check_data(place, nc=5, kind=CLASSIFY)
    (place / "val" / "disk").rename(place / "val" / "circle")
    with pytest.raises(dp.InputError, match=r"classes that train does not have.*circle"):
        check_data(place, kind=CLASSIFY)
    (place / "train" / "oval").mkdir()
    with pytest.raises(
        dp.InputError, match=r"folders of classes without images to learn from.*oval"
    ):
        check_data(place, kind=CLASSIFY)
    with pytest.raises(dp.InputError, match="there is no such folder"):
        check_data(tmp_path / "none", kind=CLASSIFY)
    (place / "val").rename(place / "other")
    with pytest.raises(dp.InputError, match="has no folder val; give a folder that holds"):
        check_data(place, kind=CLASSIFY)


@pytest.mark.parametrize(
    ("description", "data", "message"),
    [
        ("yolov8n-seg", "detect", "are boxes .* but the network learns from polygons"),
        ("yolov8n-obb", "detect", "are boxes .* but the network learns from rotated boxes"),
        ("yolov8n-pose", "detect", "has no kpt_shape"),
        ("yolov8n-cls", "detect", "a data yaml, but a classifier learns from folders"),
        ("yolov8n", "classify", "which only a classifier is trained on"),
    ],
)
def test_from_python_data_of_another_task_are_refused(
    description: str, data: str, message: str, tmp_path: Path
) -> None:
    start = start_file(tmp_path / "start.pt", description)
    place = {"data": str(drawn(data)), "project": str(tmp_path), "model": str(start)}
    with pytest.raises(dp.InputError, match=message):
        RetrainingTrainer(overrides={**OPTIONS, **place}).train()


RECIPE: dict[str, Any] = {
    "task": "yolo",
    "name": "x",
    "data": {"drawn": {}},
    "method": {"name": "admm", "rho": 0.1},
    "budget": {"compression": 2},
    "stages": {"dense": {"epochs": 1}, "constrained": {"epochs": 1}, "retrain": {"epochs": 1}},
}


@pytest.mark.parametrize(
    ("cfg", "values", "message"),
    [
        (
            "yolov8n-seg.yaml",
            {"data": {"drawn": {"task": "pose"}}},
            "drawn.task is 'pose', but the",
        ),
        ("yolov8n.yaml", {"data": {"drawn": {"task": "classify"}}}, "whose images have no boxes"),
        ("yolov8n.yaml", {"data": {"drawn": {"task": "boxes"}}}, "task"),
        ("yolov8n-obb.yaml", {"data": {"drawn": {}, "annotations": "a.json"}}, "leave annotations"),
        (
            "yolov8n-seg.yaml",
            {"train": {"kobj": 2.0}},
            "for pose estimation, and does nothing while a",
        ),
        (
            "yolov8n-pose.yaml",
            {"train": {"mask_ratio": 2}},
            "it is for segmentation, and does nothing",
        ),
        ("yolov8n-cls.yaml", {"train": {"mosaic": 0.5}}, "for networks that give boxes"),
        ("yolov8n.yaml", {"train": {"task": "segment"}}, "task is not for train; it follows from"),
    ],
)
def test_recipes_that_contradict_their_network(
    cfg: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(dp.InputError, match=message):
        validate_recipe(DetectionRecipe, {**RECIPE, "model": {"cfg": cfg}, **values})


def test_options_of_a_task_are_taken() -> None:
    for cfg, train in (
        ("yolov8n-seg.yaml", {"mask_ratio": 2, "overlap_mask": False}),
        ("yolov8n-pose.yaml", {"kobj": 2.0, "pose": 10.0}),
        ("yolov8n-cls.yaml", {"erasing": 0.1, "auto_augment": "augmix"}),
        ("yolo26n-obb.yaml", {"angle": 2.0, "nms": True}),
    ):
        recipe = validate_recipe(DetectionRecipe, {**RECIPE, "model": {"cfg": cfg}, "train": train})
        assert recipe.options("retrain")["imgsz"] == (224 if "cls" in cfg else 640)


def test_a_pose_checkpoint_of_other_key_points_is_refused(tmp_path: Path) -> None:
    spec = ModelSpec(weights=start_file(tmp_path / "start.pt", "yolov8n-pose"))
    with pytest.raises(
        dp.InputError, match=r"key points of the shape \[5, 3\], but .* is \[4, 3\]"
    ):
        build_network(spec, NAMES, any_classes=False, kpt_shape=(4, 3))
    assert build_network(spec, NAMES, any_classes=True, kpt_shape=(4, 3)).kpt_shape == [4, 3]
    described = yaml.safe_load(drawn("pose").read_text())
    assert described["kpt_shape"] == [5, 3]
    stored = json.loads((drawn("pose").parent / "set.json").read_text())
    assert stored["task"] == "pose"
