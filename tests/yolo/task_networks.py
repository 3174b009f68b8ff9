"""Small networks and drawn sets of every task."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trainings import OPTIONS

# isort: split
from detprune_yolo.data.drawing import DrawnSet, cached
from detprune_yolo.kinds import Kind, kind_of_head
from detprune_yolo.weights.checkpoints import pruned_checkpoint, save_checkpoint

# isort: split
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import yaml_model_load

VERSIONS = ("yolov8n", "yolo11n", "yolo26n")
ENDINGS = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb", "classify": "-cls"}
DESCRIPTIONS = [f"{version}{ending}" for version in VERSIONS for ending in ENDINGS.values()]
NAMES = {0: "disk", 1: "square", 2: "triangle"}
SIZE = 64


def drawn(task: Any, **values: Any) -> Path:
    """A data yaml, or the folder of a set for classification."""
    spec = {"train": 8, "val": 4, "size": SIZE, "classes": 3, **values}
    if task != "classify":
        spec.setdefault("objects", 3)
    return cached(DrawnSet(task=task, **spec))


def layers_of(description: str, width: float = 0.0625) -> tuple[dict[str, Any], Kind]:
    layers = copy.deepcopy(yaml_model_load(f"{description}.yaml"))
    if layers.get("scales"):
        scale = layers.get("scale") or next(iter(layers["scales"]))
        depth, _, most = layers["scales"][scale]
        layers["scales"] = {scale: [depth, width, most]}
    kind = kind_of_head(layers["head"][-1][2])
    assert kind is not None
    return layers, kind


def small_network(description: str, width: float = 0.0625) -> Any:
    """A network with statistics as after training, of three classes and, for poses, five key points."""
    torch.manual_seed(0)
    layers, kind = layers_of(description, width)
    points = {"data_kpt_shape": [5, 3]} if kind.task == "pose" else {}
    model = kind.network(layers, nc=len(NAMES), verbose=False, **points)
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith(("bias", "running_mean")):
            value.data.add_(torch.randn_like(value), alpha=0.05)
        elif value.dim() == 1 and name.endswith("weight"):
            value.data.mul_(0.5 + torch.rand_like(value))
    model.names, model.nc = NAMES, len(NAMES)
    model.args, model.task = get_cfg(overrides={"task": kind.task}), kind.task
    return model.eval()


def start_file(path: Path, description: str) -> Path:
    network = small_network(description)
    network.args = vars(network.args)
    save_checkpoint(path, pruned_checkpoint(network, None))
    return path


def options(task: str, folder: Path, name: str, **values: Any) -> dict[str, Any]:
    own = {**OPTIONS, "data": str(drawn(task)), "project": str(folder), "name": name, "epochs": 1}
    return {**own, **values}


def noise(images: int = 2) -> Tensor:
    return torch.rand(images, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
