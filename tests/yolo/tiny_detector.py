"""A yolov3-tiny of an eighth of the width, pruned at random, whose activations are also negative."""

import copy

import detprune_yolo  # noqa: F401  # prepares the environment before ultralytics is imported

# isort: split
import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

from detprune_yolo.weights.checkpoints import pruned_checkpoint, save_checkpoint

CLASSES = 3


def tiny_detector() -> DetectionModel:
    description = copy.deepcopy(yaml_model_load("yolov3-tiny.yaml"))
    description.update(width_multiple=0.125, nc=CLASSES)
    model = DetectionModel(description, verbose=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training, not 0 and 1
            module.bias.data.normal_(-0.3, 0.3)
            module.running_mean.normal_(0, 0.1)
            module.running_var.fill_(0.1)
    model.args = {"imgsz": 64, "task": "detect"}
    return model


def prune(model: DetectionModel) -> dict[str, Tensor]:
    """Prune all 3×3 convolutions but the first to a quarter, at random."""
    masks = {}
    for name, weight in model.named_parameters():
        if weight.shape[-2:] == (3, 3) and not name.startswith("model.0."):
            masks[name] = torch.rand_like(weight) < 0.25
            weight.data.mul_(masks[name])
    return masks


def write_pruned(path) -> dict[str, Tensor]:
    model = tiny_detector()
    masks = prune(model)
    save_checkpoint(path, pruned_checkpoint(model, masks))
    return masks


def zeros_of(weights: dict[str, Tensor], masks: dict[str, Tensor]) -> dict[str, int]:
    return {name: int((weights[name] == 0).sum()) for name in masks}


def pruned_counts(masks: dict[str, Tensor]) -> dict[str, int]:
    return {name: int((~mask).sum()) for name, mask in masks.items()}
