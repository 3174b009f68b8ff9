"""CIFAR ResNets of depth 6n + 2: He et al., "Deep residual learning for image recognition", 2016, §4.2.

Shortcuts are the paper's option A (no parameters). Module names follow the widely used
``pytorch_resnet_cifar10`` layout (conv1, bn1, layer1..3, linear), so that checkpoints trained with
it load as they are. Unlike there, the last average pool takes any map, square or not, and the
shortcut is a module of its own rather than a lambda, so that networks can be pickled and copied.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (16, 32, 64)


class OptionAShortcut(nn.Module):
    """Identity across a change of width: take every second pixel, pad the new channels with zeros.

    Maps (N, in_channels, H, W) to (N, out_channels, ceil(H/2), ceil(W/2)); the zero channels are
    split evenly before and after the old ones.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        before = (out_channels - in_channels) // 2
        self.before = before
        self.after = out_channels - in_channels - before

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        return f"before={self.before}, after={self.after}"


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; ``stride`` 2 where the width changes, else 1."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = (
            nn.Identity() if stride == 1 else OptionAShortcut(in_channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return functional.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet of depth 6 * ``blocks`` + 2 with 16, 32 and 64 channels (He et al., 2016, §4.2).

    Maps (N, in_channels, H, W) images, H and W of 8 or more, to (N, num_classes) logits.
    """

    def __init__(self, blocks: int, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], blocks)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], blocks)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], blocks)
        self.linear = nn.Linear(WIDTHS[2], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(torch.flatten(functional.adaptive_avg_pool2d(out, 1), 1))
        return logits


def _stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride=1 if in_channels == channels else 2)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


cifar_resnet20 = partial(CifarResNet, 3)
cifar_resnet32 = partial(CifarResNet, 5)
cifar_resnet44 = partial(CifarResNet, 7)
cifar_resnet56 = partial(CifarResNet, 9)
cifar_resnet110 = partial(CifarResNet, 18)
