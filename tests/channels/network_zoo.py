"""torchvision's networks, narrow where the full ones are slow, with small inputs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import convnext, densenet, efficientnet, mobilenetv3, regnet, vgg

Made = tuple[nn.Module, Tensor]
_CLASSES = 10


def _images(size: int = 32) -> Tensor:
    return torch.randn(1, 3, size, size)


def _vgg() -> nn.Module:
    widths = [16, "M", 32, "M", 64, 64, "M", 64, 64, "M", 64, 64, "M"]
    network = vgg.VGG(vgg.make_layers(widths, batch_norm=True), num_classes=_CLASSES)
    network.avgpool = nn.AdaptiveAvgPool2d(2)
    network.classifier[0], network.classifier[3] = nn.Linear(256, 128), nn.Linear(128, 64)
    network.classifier[6] = nn.Linear(64, _CLASSES)
    return network


def _alexnet() -> nn.Module:
    network = models.AlexNet(num_classes=_CLASSES)
    network.avgpool = nn.AdaptiveAvgPool2d(1)
    network.classifier[1], network.classifier[4] = nn.Linear(256, 128), nn.Linear(128, 64)
    network.classifier[6] = nn.Linear(64, _CLASSES)
    return network


def _resnet50() -> nn.Module:
    return models.ResNet(
        models.resnet.Bottleneck, [1, 2, 1, 1], num_classes=_CLASSES, width_per_group=16
    )


def _densenet() -> nn.Module:
    return densenet.DenseNet(8, (3, 3, 2, 2), 16, bn_size=4, num_classes=_CLASSES)


def _mobilenet_v3(arch: str) -> nn.Module:
    setting, last = mobilenetv3._mobilenet_v3_conf(arch, width_mult=0.5)
    return mobilenetv3.MobileNetV3(setting, last, num_classes=_CLASSES)


def _efficientnet() -> nn.Module:
    setting, last = efficientnet._efficientnet_conf(
        "efficientnet_b0", width_mult=0.5, depth_mult=0.5
    )
    return efficientnet.EfficientNet(setting, 0.2, num_classes=_CLASSES, last_channel=last)


def _regnet() -> nn.Module:
    parameters = regnet.BlockParams.from_init_params(
        depth=6, w_0=48, w_a=27.89, w_m=2.09, group_width=8, se_ratio=0.25
    )
    return regnet.RegNet(parameters, num_classes=_CLASSES)


def _convnext() -> nn.Module:
    blocks = [
        convnext.CNBlockConfig(24, 48, 1),
        convnext.CNBlockConfig(48, 96, 2),
        convnext.CNBlockConfig(96, None, 1),
    ]
    return convnext.ConvNeXt(blocks, num_classes=_CLASSES)


def _shufflenet() -> nn.Module:
    return models.ShuffleNetV2([2, 2, 2], [24, 48, 96, 192, 256], num_classes=_CLASSES)


NETWORKS: dict[str, Callable[[], Made]] = {
    "resnet18": lambda: (models.resnet18(num_classes=_CLASSES), _images()),
    "resnet50": lambda: (_resnet50(), _images()),
    "vgg16_bn": lambda: (_vgg(), _images()),
    "alexnet": lambda: (_alexnet(), _images(64)),
    "mobilenet_v2": lambda: (models.MobileNetV2(_CLASSES, width_mult=0.5), _images()),
    "mobilenet_v3_small": lambda: (_mobilenet_v3("mobilenet_v3_small"), _images()),
    "mobilenet_v3_large": lambda: (_mobilenet_v3("mobilenet_v3_large"), _images()),
    "densenet121": lambda: (_densenet(), _images()),
    "efficientnet_b0": lambda: (_efficientnet(), _images()),
    "regnet_y_400mf": lambda: (_regnet(), _images()),
    "shufflenet_v2": lambda: (_shufflenet(), _images()),
    "googlenet": lambda: (
        models.GoogLeNet(num_classes=_CLASSES, aux_logits=False, init_weights=False),
        _images(),
    ),
    "squeezenet1_1": lambda: (models.squeezenet1_1(num_classes=_CLASSES), _images()),
    "convnext_tiny": lambda: (_convnext(), _images()),
    "mnasnet": lambda: (models.MNASNet(0.5, _CLASSES), _images()),
    "resnext": lambda: (
        models.ResNet(
            models.resnet.Bottleneck, [1, 1, 1, 1], _CLASSES, groups=8, width_per_group=8
        ),
        _images(),
    ),
}

REMOVABLE = {"shufflenet_v2": 0.6, "convnext_tiny": 0.5}
"""Share of channels that can go at least, where it is not 95 %."""
