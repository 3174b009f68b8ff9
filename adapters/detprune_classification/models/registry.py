"""The models by name: the CIFAR networks here, and every classification model of torchvision."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from detprune.errors import InputError, nearest, unknown

from . import cifar_resnet, cifar_variants
from .checkpoints import load_checkpoint
from .torchvision_models import build_plain, build_pretrained, torchvision_names, weights_names


@dataclass(frozen=True)
class ModelSpec:
    """A model's name, its one-line description, and ``build(num_classes, in_channels)``."""

    name: str
    line: str
    build: Callable[[int, int], nn.Module]


MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            "cifar_resnet20",
            "ResNet-20, option-A shortcuts, 0.27M weights; images of 8 px or more",
            cifar_resnet.cifar_resnet20,
        ),
        ModelSpec(
            "cifar_resnet32",
            "ResNet-32, option-A shortcuts, 0.46M weights; images of 8 px or more",
            cifar_resnet.cifar_resnet32,
        ),
        ModelSpec(
            "cifar_resnet44",
            "ResNet-44, option-A shortcuts, 0.66M weights; images of 8 px or more",
            cifar_resnet.cifar_resnet44,
        ),
        ModelSpec(
            "cifar_resnet56",
            "ResNet-56, option-A shortcuts, 0.85M weights; images of 8 px or more",
            cifar_resnet.cifar_resnet56,
        ),
        ModelSpec(
            "cifar_resnet110",
            "ResNet-110, option-A shortcuts, 1.7M weights; images of 8 px or more",
            cifar_resnet.cifar_resnet110,
        ),
        ModelSpec(
            "cifar_resnet18",
            "ResNet-18 with a 3×3 stem and no max-pool, 11.2M weights; for 32×32 images",
            cifar_variants.cifar_resnet18,
        ),
        ModelSpec(
            "cifar_resnet50",
            "ResNet-50 with a 3×3 stem and no max-pool, 23.5M weights; for 32×32 images",
            cifar_variants.cifar_resnet50,
        ),
        ModelSpec(
            "cifar_vgg16",
            "VGG-16 with batch norm and one linear layer, 14.7M weights; images of 32 px or more",
            cifar_variants.cifar_vgg16,
        ),
        ModelSpec(
            "cifar_mobilenet_v2",
            "MobileNetV2 with its first two strides 1, 2.2M weights; for 32×32 images",
            cifar_variants.cifar_mobilenet_v2,
        ),
        ModelSpec(
            "cifar_mobilenet_v3_small",
            "MobileNetV3-Small with its first two strides 1, 1.5M weights; for 32×32 images",
            cifar_variants.cifar_mobilenet_v3_small,
        ),
        ModelSpec(
            "cifar_mobilenet_v3_large",
            "MobileNetV3-Large with its first two strides 1, 4.2M weights; for 32×32 images",
            cifar_variants.cifar_mobilenet_v3_large,
        ),
    )
}

_TORCHVISION = "torchvision:"


def list_models() -> dict[str, str]:
    """Return name -> one-line description of every model; torchvision's share one entry."""
    lines = {spec.name: spec.line for spec in MODELS.values()}
    lines[f"{_TORCHVISION}<any>"] = (
        "any of torchvision's classification models under its own name, with or without "
        f"{_TORCHVISION!r} before it, for example resnet50; its ImageNet layout and weights"
    )
    return lines


def check_model_name(name: str) -> None:
    """Raise `InputError`, with the nearest known name, for a model that `build_model` does not know."""
    plain = name.removeprefix(_TORCHVISION)
    if name not in MODELS and plain not in torchvision_names():
        raise unknown("model", plain, [*MODELS, *torchvision_names()])


def build_model(
    name: str, num_classes: int, in_channels: int = 3, weights: str | None = None
) -> nn.Module:
    """Build a network that maps (N, in_channels, H, W) images to (N, num_classes) logits.

    ``weights`` is None for random initialisation from torch's global generator, the path of a
    checkpoint file (see `load_checkpoint`), or, for a torchvision model, the name of its pretrained
    weights, for example ``DEFAULT`` or ``IMAGENET1K_V1``: those take 3 channels, and their last
    layer is replaced by a fresh one where ``num_classes`` differs from theirs.

    Raises `InputError` for an unknown name, sizes below 1, unknown or unusable weights, or
    pretrained weights that cannot be downloaded (the message says which file to put where).
    """
    for argument, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value < 1:
            raise InputError(f"{argument} is {value}; it must be 1 or more")
    check_model_name(name)
    if name in MODELS:
        _require_weights_file(name, weights, [])
        model = MODELS[name].build(num_classes, in_channels)
    else:
        plain = name.removeprefix(_TORCHVISION)
        pretrained = weights_names(plain)
        if weights in pretrained:
            return build_pretrained(plain, num_classes, in_channels, weights)
        _require_weights_file(name, weights, pretrained)
        model = build_plain(plain, num_classes, in_channels)
    if weights is not None:
        load_checkpoint(model, weights)
    return model


def _require_weights_file(name: str, weights: str | None, pretrained: list[str]) -> None:
    """Raise where ``weights`` is neither None nor a file; before the model is built, which is slow."""
    if weights is None or Path(weights).expanduser().is_file():
        return
    if pretrained:
        raise InputError(
            f"weights {weights!r} of model {name!r}{nearest(weights, pretrained)}: neither one of "
            f"{', '.join(pretrained)} nor an existing file; give one of these names or the path of "
            "a checkpoint, or leave weights out"
        )
    raise InputError(
        f"weights {weights!r} of model {name!r}: no such file, and this model has no weights to "
        "download; give the path of a checkpoint, or leave weights out"
    )
