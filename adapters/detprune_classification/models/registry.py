"""The models by name: the CIFAR networks here, and every classification model of torchvision."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from detprune.errors import InputError, nearest, unknown
from detprune_classification.listing import TORCHVISION

from . import cifar_resnet, cifar_variants
from .checkpoints import load_checkpoint
from .torchvision_models import build_plain, build_pretrained, torchvision_names, weights_names

MODELS: dict[str, Callable[[int, int], nn.Module]] = {
    "cifar_resnet20": cifar_resnet.cifar_resnet20,
    "cifar_resnet32": cifar_resnet.cifar_resnet32,
    "cifar_resnet44": cifar_resnet.cifar_resnet44,
    "cifar_resnet56": cifar_resnet.cifar_resnet56,
    "cifar_resnet110": cifar_resnet.cifar_resnet110,
    "cifar_resnet18": cifar_variants.cifar_resnet18,
    "cifar_resnet50": cifar_variants.cifar_resnet50,
    "cifar_vgg16": cifar_variants.cifar_vgg16,
    "cifar_mobilenet_v2": cifar_variants.cifar_mobilenet_v2,
    "cifar_mobilenet_v3_small": cifar_variants.cifar_mobilenet_v3_small,
    "cifar_mobilenet_v3_large": cifar_variants.cifar_mobilenet_v3_large,
}
"""Name → ``build(num_classes, in_channels)``; ``listing.py`` has a line for each."""


def check_model_name(name: str) -> None:
    """Raise `InputError`, with the nearest known name, for a model that `build_model` does not know."""
    plain = name.removeprefix(TORCHVISION)
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
        model = MODELS[name](num_classes, in_channels)
    else:
        plain = name.removeprefix(TORCHVISION)
        pretrained = weights_names(plain)
        if weights in pretrained:
            return build_pretrained(plain, num_classes, in_channels, weights)
        _require_weights_file(name, weights, pretrained)
        model = build_plain(plain, num_classes, in_channels)
    if weights is not None:
        load_checkpoint(model, weights)
    return model


def _require_weights_file(name: str, weights: str | None, pretrained: list[str]) -> None:
    """Refuse ``weights`` that are neither None nor a file, before the model is built, which is slow."""
    if weights is None or Path(weights).expanduser().is_file():
        return
    if Path(weights).expanduser().is_dir():
        raise InputError(
            f"weights {weights!r} of model {name!r} is a folder; give the checkpoint file in it, or leave "
            "weights out"
        )
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
