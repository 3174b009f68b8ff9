"""torchvision's ImageNet networks, changed for 32×32 images as is usual for CIFAR.

Each network is torchvision's own class with its stem or early strides changed (MobileNetV3: batch norm's
momentum too), so module names, initialisation and pretrained-layer shapes past the stem stay
torchvision's. In all of them the map before the average pool is 4×4 for a 32×32 image (VGG-16: 1×1, so it
needs 32 pixels or more).

Papers: He et al. 2016 (ResNet), Simonyan & Zisserman 2015 (VGG), Sandler et al. 2018 (MobileNetV2),
Howard et al. 2019 (MobileNetV3).
"""

from typing import Any

import torch
from torch import nn
from torchvision import models

from .surgery import relax_strides, set_in_channels


def cifar_resnet18(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build ResNet-18 for (N, in_channels, 32, 32) images, giving (N, num_classes) logits."""
    return _small_stem(models.resnet18(num_classes=num_classes), in_channels)


def cifar_resnet50(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build ResNet-50 for (N, in_channels, 32, 32) images, giving (N, num_classes) logits."""
    return _small_stem(models.resnet50(num_classes=num_classes), in_channels)


def cifar_vgg16(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build VGG-16 with batch norm and one linear layer; (N, in_channels, 32, 32) to logits."""
    # On the meta device, because the ImageNet classifier that is thrown away has 120M weights.
    with torch.device("meta"):
        model: nn.Module = models.vgg16_bn(init_weights=False)
        model.avgpool = nn.AdaptiveAvgPool2d(1)
        model.classifier = nn.Linear(512, num_classes)
        set_in_channels(model, in_channels)
    model.to_empty(device="cpu")
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.Linear):
            module.reset_parameters()
    return model


def cifar_mobilenet_v2(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build MobileNetV2, first two strides 1; (N, in_channels, 32, 32) to (N, num_classes)."""
    model: nn.Module = models.mobilenet_v2(num_classes=num_classes)
    relax_strides(model, count=2)
    set_in_channels(model, in_channels)
    return model


def cifar_mobilenet_v3_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build MobileNetV3-Small, first two strides 1; (N, in_channels, 32, 32) to logits."""
    model: nn.Module = models.mobilenet_v3_small(num_classes=num_classes)
    relax_strides(model, count=2)
    # With its stride gone the first block keeps size and width (16 to 16 channels), which is the
    # paper's condition for a residual; torchvision decided on it while the stride was still 2.
    first_block: Any = model.get_submodule("features.1")
    first_block.use_res_connect = True
    _follow_faster(model)
    set_in_channels(model, in_channels)
    return model


def cifar_mobilenet_v3_large(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build MobileNetV3-Large, first two strides 1; (N, in_channels, 32, 32) to logits."""
    model: nn.Module = models.mobilenet_v3_large(num_classes=num_classes)
    relax_strides(model, count=2)
    _follow_faster(model)
    set_in_channels(model, in_channels)
    return model


def _follow_faster(model: nn.Module) -> None:
    """Set batch norm's momentum to PyTorch's 0.1.

    With MobileNetV3's 0.01 the statistics lag a hundred steps behind, which is several epochs of a small set.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1


def _small_stem(model: nn.Module, in_channels: int) -> nn.Module:
    """Replace a ResNet's 7×7 stride-2 stem by 3×3 stride 1 and drop its max-pool."""
    stem = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    model.conv1 = stem
    model.maxpool = nn.Identity()
    return model
