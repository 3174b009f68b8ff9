"""All families of detectors at small width, with statistics as after training, and shrunk by channels."""

import copy
from typing import Any

import torch
from torch import Tensor

import detprune as dp
from detprune.channels import ChannelPlan

# isort: split
from detprune_yolo.channels import detector_set, smaller_detector

# isort: split
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

FAMILIES = [
    *("yolov3-tiny", "yolov3-spp", "yolov5n", "yolov6n", "yolov8n"),
    *("yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n"),
]
SIZE = 64


def small_detector(family: str, classes: int = 6) -> DetectionModel:
    torch.manual_seed(0)
    layers = copy.deepcopy(yaml_model_load(f"{family}.yaml"))
    if "scales" in layers:
        depth, width, _ = layers["scales"][layers["scale"]]
        layers["scales"] = {layers["scale"]: [depth, width, 256]}
    elif "width_multiple" in layers:
        layers["width_multiple"] = 0.125
    model = DetectionModel(layers, nc=classes, verbose=False)
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith(("bias", "running_mean")):
            value.data.add_(torch.randn_like(value), alpha=0.1)
        elif value.dim() == 1 and name.endswith("weight"):
            value.data.mul_(0.5 + torch.rand_like(value))
    model.args = get_cfg()
    return model.eval()


def shrunk(model: DetectionModel, macs: float = 0.5, **options: Any) -> tuple[Any, ChannelPlan]:
    """The smaller detector; ``model`` has zeros in the place of what was removed."""
    chosen: Any = detector_set(dp.CoupledChannels(**options), model, SIZE)
    budget = dp.Budget(macs=macs)
    bound, record, costs = chosen._bound(model, budget)  # once for plan and pruner
    pruner = dp.Pruner(model, None, dp.OneShot(), bound, budget)
    pruner.hard_prune()
    return smaller_detector(pruner), ChannelPlan.of(bound, record, costs)


def noise(images: int = 2, size: int = SIZE) -> Tensor:
    return torch.rand(images, 3, size, size, generator=torch.Generator().manual_seed(1))
