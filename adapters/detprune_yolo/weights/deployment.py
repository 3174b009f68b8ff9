# SPDX-License-Identifier: AGPL-3.0-or-later
"""Networks as inference runs them: fused, and without the head's branch that only training uses."""

import copy
from pathlib import Path
from typing import Any

import torch
from ultralytics.nn.tasks import BaseModel

from detprune.run.measuring import Deployed, deployed
from detprune.run.measuring.sources import Opened
from detprune_yolo.channels import state_widths
from detprune_yolo.forward import run_detector
from detprune_yolo.kinds import kind_of
from detprune_yolo.weights.checkpoints import load_model, train_args_of


@deployed.register
def _(network: BaseModel) -> Deployed:
    fused = copy.deepcopy(network).cpu().float().eval()
    fused.fuse(verbose=False)
    head: Any = fused.model[-1]
    head.export, head.format, head.shape = True, "onnx", None
    return Deployed(
        network,
        fused,
        stride=stride_of(network),
        forward=run_detector,
        finish=state_widths,
    )


def stride_of(network: BaseModel) -> int:
    """What the sides of images are multiples of, in pixels; 1 for a classifier, which takes any."""
    return int(max(network.stride))


def open_file(path: Path) -> Opened:
    """The network of an Ultralytics checkpoint, with an input image of its training size.

    Raises:
        InputError: what ``load_model`` raises.
    """
    network = load_model(path)
    size = train_args_of(path).get("imgsz") or kind_of(network).imgsz
    stride = stride_of(network)
    sides = [size, size] if isinstance(size, int) else list(size)
    description: Any = network.yaml
    channels = int(description.get("channels", 3))
    height, width = (-(-int(side) // stride) * stride for side in sides)
    return Opened(
        network, (torch.zeros(1, channels, height, width),), str(path), path.stat().st_size
    )
