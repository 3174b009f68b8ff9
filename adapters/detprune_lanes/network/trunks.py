"""The residual networks in front of a lane network: torchvision's, under the original's names."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from detprune.errors import InputError, unknown
from detprune.files import safe_load

TRUNKS: Mapping[str, str] = {
    "18": "resnet18",
    "34": "resnet34",
    "50": "resnet50",
    "101": "resnet101",
    "152": "resnet152",
    "50next": "resnext50_32x4d",
    "101next": "resnext101_32x8d",
    "50wide": "wide_resnet50_2",
    "101wide": "wide_resnet101_2",
}
"""Name in Ultra-Fast-Lane-Detection → torchvision's."""


class Trunk(nn.Module):
    """A residual network without its classifier, initialised as torchvision does.

    Attributes:
        name: one of ``TRUNKS``.
        channels: channels of the features at 1/8, 1/16 and 1/32.

    Raises:
        InputError: an unknown name.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        network = _resnet(name)
        self.name, self.channels = str(name), _channels(network)
        self.conv1: nn.Module = network.conv1
        self.bn1: nn.Module = network.bn1
        self.relu: nn.Module = network.relu
        self.maxpool: nn.Module = network.maxpool
        self.layer1: nn.Module = network.layer1
        self.layer2: nn.Module = network.layer2
        self.layer3: nn.Module = network.layer3
        self.layer4: nn.Module = network.layer4

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at 1/8, 1/16 and 1/32 of the images' height and width, (N, channels, h, w)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


def trunk_channels(name: str) -> tuple[int, int, int]:
    """Channels of the features at 1/8, 1/16 and 1/32.

    Raises:
        InputError: an unknown name.
    """
    return _channels(_on_meta(name))


def load_imagenet(trunk: Trunk, path: str | Path) -> None:
    """Load a file of torchvision's weights into the trunk, without the classifier.

    Such as ``resnet18-f37072fd.pth`` from https://download.pytorch.org/models. The trunk is unchanged
    where the file is refused.

    Raises:
        InputError: a file that cannot be opened safely, or is not of this trunk's network.
    """
    network = TRUNKS[trunk.name]
    wanted = f"torchvision's file of weights for {network}"
    content = safe_load(path, wanted)
    state = (
        {name: value for name, value in content.items() if not str(name).startswith("fc.")}
        if isinstance(content, dict)
        else {}
    )
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds no plain state dict; give {wanted}")
    fitting = trunks_of({name: value.shape for name, value in state.items()})
    if trunk.name not in fitting:
        found = "of no residual network of torchvision"
        if fitting:
            found = f"of {TRUNKS[fitting[0]]}, the trunk {fitting[0]!r}"
        elif "cls.2.weight" in state:
            found = "of a whole lane network, which model: weights: takes in a recipe"
        raise InputError(f"{path} holds weights {found}; give {wanted}, or choose another trunk")
    # torchvision's older files have no batch-norm counters; torch fills them in where a state dict
    # has no version
    trunk.load_state_dict(state)


def trunks_of(shapes: Mapping[str, torch.Size]) -> tuple[str, ...]:
    """The trunks whose state dict has these names and shapes; batch-norm counters do not count."""
    given = _counted(shapes)
    return tuple(name for name in TRUNKS if _shapes(name) == given)


@cache
def _shapes(name: str) -> dict[str, torch.Size]:
    state = _on_meta(name).state_dict()
    return _counted({n: v.shape for n, v in state.items() if not n.startswith("fc.")})


def _channels(network: Any) -> tuple[int, int, int]:
    expansion: int = network.layer4[-1].expansion
    return 128 * expansion, 256 * expansion, 512 * expansion


def _counted(shapes: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    return {n: shape for n, shape in shapes.items() if not n.endswith("num_batches_tracked")}


def _resnet(name: str) -> Any:
    key = str(name)  # 18 may be given as a number
    if key not in TRUNKS:
        raise unknown("trunk", key, TRUNKS)
    return models.get_model(TRUNKS[key], weights=None)


def _on_meta(name: str) -> Any:
    """The network on the meta device: no memory for its weights, and no change of the random state."""
    with torch.device("meta"):
        return _resnet(name)
