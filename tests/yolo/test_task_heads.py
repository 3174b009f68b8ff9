"""Heads of every task: what stays dense, zeroed and shrunk networks agree, exports, teachers, branches."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from small_detectors import shrunk
from task_networks import (
    DESCRIPTIONS,
    SIZE,
    drawn,
    layers_of,
    noise,
    small_network,
    start_file,
)
from torch.utils._pytree import tree_leaves

import detprune as dp

# isort: split
from detprune_yolo.data.building import build_images
from detprune_yolo.data.places import check_class_folders
from detprune_yolo.exclusions import detector_budget
from detprune_yolo.export.onnx import export_onnx
from detprune_yolo.forward import run_detector
from detprune_yolo.measure.calibration import TrainingImages, task_loss
from detprune_yolo.outputs import output_weights
from detprune_yolo.training.distillation import TaughtCriterion
from detprune_yolo.weights.checkpoints import load_model

# isort: split
from ultralytics.cfg import get_cfg
from ultralytics.data.utils import check_det_dataset

pytestmark = pytest.mark.slow

LAST = {  # the layers that give outputs; yolo26 has them twice, once for each branch
    "yolov8n-seg": [*(f"cv{k}.{i}.2" for k in (2, 3, 4) for i in range(3)), "proto.cv3.conv"],
    "yolo11n-pose": [f"cv{k}.{i}.2" for k in (2, 3, 4) for i in range(3)],
    "yolo11n-obb": [f"cv{k}.{i}.2" for k in (2, 3, 4) for i in range(3)],
    "yolo26n-pose": [
        f"{branch}{name}"
        for branch in ("", "one2one_")
        for i in range(3)
        for name in (f"cv2.{i}.2", f"cv3.{i}.2", f"cv4_kpts.{i}", f"cv4_sigma.{i}")
    ],
    "yolov8n-cls": ["linear"],
}


@pytest.mark.parametrize("description", LAST)
def test_layers_that_give_the_outputs_stay_dense(description: str) -> None:
    model = small_network(description)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    last, unused = output_weights(model)
    head = f"model.{len(model.model) - 1}."
    assert last == {f"{head}{name}.weight" for name in LAST[description]}
    loss_alone = {name for name in unused if ".dfl." not in name}
    assert all(name.startswith(f"{head}flow_model.") for name in loss_alone)
    assert bool(loss_alone) == (description == "yolo26n-pose")
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    excluded = detector_budget(dp.Budget(compression=2), model).exclude
    assert last | unused < set(excluded)
    assert not any(name.startswith("model.1.") for name in excluded)


@pytest.mark.parametrize("description", [d for d in DESCRIPTIONS if "-" in d])
def test_without_its_zero_channels_a_network_has_the_same_outputs(description: str) -> None:
    model = small_network(description)
    model.end2end = True
    smaller, _ = shrunk(model, 0.6, round_to=2)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        for zeroed, small in zip(*map(_outputs, (model, smaller)), strict=True):
            torch.testing.assert_close(zeroed, small, rtol=1e-3, atol=1e-4)


def _outputs(model: Any) -> list[torch.Tensor]:
    return [t for t in tree_leaves(run_detector(model, noise())) if isinstance(t, torch.Tensor)]


@pytest.mark.parametrize(
    "description", ["yolov8n-seg", "yolov8n-pose", "yolov8n-obb", "yolov8n-cls", "yolo26n"]
)
def test_exports_are_checked(description: str, tmp_path: Path) -> None:
    start = start_file(tmp_path / "start.pt", description)
    check = export_onnx(start, tmp_path / "net.onnx", imgsz=SIZE)
    assert check.path.is_file()
    assert check.end_to_end == (description == "yolo26n")
    assert check.max_score_difference < 1e-4


def batches(task: str, kind: Any) -> list[dict[str, Any]]:
    place = drawn(task)
    images = TrainingImages(place, count=4, imgsz=SIZE, batch=2, kind=kind)
    return list(images.batches(torch.device("cpu")))


@pytest.mark.parametrize("description", [d for d in DESCRIPTIONS if "11n" not in d])
def test_a_teacher_teaches_boxes_and_classes_alone(description: str) -> None:
    kind = layers_of(description)[1]
    network, teacher = small_network(description), small_network(description)
    other = copy.deepcopy(teacher)
    for parameter in other.parameters():
        parameter.data.mul_(1.1)
    (batch, _) = batches(kind.task, kind)
    network.model[-1].training = True  # but not its norms
    losses = {}
    for name, taught_by in (("same", teacher), ("other", other)):
        criterion = TaughtCriterion(network, taught_by, 0.5)
        plain, items = criterion.criterion(network(batch["img"]), batch)
        loss, mixed = criterion(network(batch["img"]), batch)
        losses[name] = loss
        assert loss.shape == plain.shape
        assert mixed.keys() == items.keys()
        for key in mixed:  # a network that is its own teacher has no divergence
            halved = key in ("loss", "box_loss", "cls_loss", "dfl_loss", "l1_loss")
            if name == "same":
                torch.testing.assert_close(mixed[key], items[key] * (0.5 if halved else 1))
            elif not halved:
                torch.testing.assert_close(mixed[key], items[key])
    assert not torch.equal(losses["same"], losses["other"])


def test_a_teacher_of_another_task_is_refused() -> None:
    with pytest.raises(
        dp.InputError, match=r"is a network for detection .*, the pruned one is for seg"
    ):
        TaughtCriterion(small_network("yolov8n-seg"), small_network("yolov8n"), 0.5)


@pytest.mark.parametrize("description", [d for d in DESCRIPTIONS if "11n" not in d])
def test_the_task_loss_is_that_of_all_images(description: str) -> None:
    kind = layers_of(description)[1]
    model = small_network(description)
    images = TrainingImages(drawn(kind.task), count=4, imgsz=SIZE, batch=2, kind=kind)
    loss = task_loss(model, images, torch.device("cpu"))
    assert loss > 0
    assert loss == task_loss(model, images, torch.device("cpu"))


def test_a_loaded_network_with_two_branches_runs_the_one_to_one_branch(tmp_path: Path) -> None:
    model = load_model(start_file(tmp_path / "start.pt", "yolo26n-obb"))
    assert model.end2end
    (outputs,) = run_detector(model, noise())  # of one branch
    assert {*outputs} == {"boxes", "scores", "angle"}
    assert not hasattr(load_model(start_file(tmp_path / "v8.pt", "yolov8n")).model[-1], "_end2end")


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb", "classify"])
def test_images_are_read_without_caches(task: str, tmp_path: Path) -> None:
    description = {"detect": "yolov8n", "segment": "yolov8n-seg", "classify": "yolov8n-cls"}
    kind = layers_of(description.get(task, f"yolov8n-{task}"))[1]
    place = drawn(task)
    data = check_class_folders(place) if task == "classify" else check_det_dataset(str(place))
    root = place if place.is_dir() else place.parent
    before = set(root.rglob("*"))
    images = build_images(
        get_cfg(overrides={"task": task, "imgsz": SIZE}), data["val"], 2, data, kind
    )
    assert len(images) == 4
    assert set(root.rglob("*")) == before
