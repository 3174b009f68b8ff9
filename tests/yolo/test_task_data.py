"""Data sets, recipes and checkpoints that do not fit the task of the network are refused before training."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from detection_set import DataSet
from task_networks import NAMES, SIZE, drawn, start_file
from trainings import OPTIONS

import detprune as dp

# isort: split
from detprune.run.recipe import validate as validate_recipe
from detprune_yolo import RetrainingTrainer
from detprune_yolo.data.check import check_data
from detprune_yolo.data.drawing import DrawnSet, draw
from detprune_yolo.kinds import CLASSIFY, DETECT, OBB, POSE, SEGMENT, Kind
from detprune_yolo.networks import build_network
from detprune_yolo.recipe import DetectionRecipe, ModelSpec


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
        (POSE, POSE_ROW.replace("0.4 0.4", "1.5 0.4"), {"kpt_shape": [2, 3]}, "outside the image"),
        (POSE, POSE_ROW.replace("0.4 0.4", "0.4 -0.5"), {"kpt_shape": [2, 3]}, "outside the image"),
        (POSE, POSE_ROW.replace("0.4 2", "0.4 -1"), {"kpt_shape": [2, 3]}, "outside the image"),
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
