"""ONNX export of detectors with branches that fusing merges or heads that only training uses."""

import copy
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper

import detprune as dp

# isort: split
from detprune_yolo.exclusions import detector_budget
from detprune_yolo.export.onnx import export_onnx
from detprune_yolo.weights.checkpoints import pruned_checkpoint, save_checkpoint

# isort: split
from ultralytics.nn.tasks import DetectionModel, yaml_model_load


def narrow(cfg: str) -> DetectionModel:
    """A detector of half the width of its n, where it comes in widths, with statistics as after training."""
    torch.manual_seed(0)
    description = copy.deepcopy(yaml_model_load(cfg))
    if "scales" in description:
        description["scales"] = {"n": [0.33, 0.125, 1024]}
        description["scale"] = "n"
    model = DetectionModel(description, nc=3, verbose=False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.bias.data.normal_(-0.1, 0.3)
            module.running_mean.normal_(0, 0.1)
            module.running_var.fill_(0.3)
    model.args = {"imgsz": 64, "task": "detect"}
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cfg", "sparsity_set"),
    [
        ("yolov9t.yaml", dp.Unstructured()),
        ("yolov10n.yaml", dp.Unstructured()),
        ("yolov10n.yaml", dp.Filter()),
        ("yolo26n.yaml", dp.Unstructured()),
        ("yolo26n.yaml", dp.Filter()),
    ],
)
def test_pruned_detectors_of_other_generations_are_exported(
    cfg: str, sparsity_set: dp.SparsitySet, tmp_path: Path
) -> None:
    model = narrow(cfg)
    budget = detector_budget(dp.Budget(compression=4), model)
    pruner = dp.Pruner(model, None, dp.OneShot(), sparsity_set, budget)
    pruner.hard_prune()
    save_checkpoint(tmp_path / "pruned.pt", pruned_checkpoint(model, pruner.masks))
    check = export_onnx(tmp_path / "pruned.pt", tmp_path / "net.onnx", imgsz=64)
    masks = pruner.masks or {}
    assert set(check.absent) | set(check.layers) == set(masks)
    head = f"model.{len(model.model) - 1}."
    assert all(name.startswith(head) for name in check.absent)
    zeros = {name: int((~masks[name]).sum()) for name in check.layers}
    assert {name: layer.zeros for name, layer in check.layers.items()} == zeros
    assert check.zeros == sum(zeros.values()) > 0
    held = [numpy_helper.to_array(i) for i in onnx.load(check.path).graph.initializer]
    kernels = [array for array in held if array.ndim == 4]
    assert sum(int((array == 0).sum()) for array in kernels) >= check.zeros
