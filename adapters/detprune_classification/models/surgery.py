"""Small changes to a built network: its input channels, its early strides, its last layer."""

import torch
from torch import nn

from detprune.errors import InputError


def set_in_channels(model: nn.Module, in_channels: int) -> None:
    """Replace the first convolution by one for ``in_channels`` images, freshly initialised.

    Nothing happens where the number is right already.
    """
    name, old = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    if old.in_channels == in_channels:
        return
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        _pair(old.kernel_size),
        stride=_pair(old.stride),
        padding=old.padding if isinstance(old.padding, str) else _pair(old.padding),
        bias=old.bias is not None,
        device=old.weight.device,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    model.set_submodule(name, new)


def relax_strides(model: nn.Module, count: int) -> None:
    """Set the first ``count`` strided convolutions, in the network's order, to stride 1."""
    strided = [m for m in model.modules() if isinstance(m, nn.Conv2d) and _pair(m.stride) != (1, 1)]
    for conv in strided[:count]:
        conv.stride = (1, 1)


def replace_classifier(model: nn.Module, num_classes: int) -> None:
    """Replace the last linear layer (or 1×1 convolution, as in SqueezeNet) by a fresh one.

    Raises `InputError` where the network has neither.
    """
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    if not layers:
        raise InputError(
            f"{type(model).__name__} has no linear or convolution layer to replace as classifier"
        )
    name, old = layers[-1]
    bias, device = old.bias is not None, old.weight.device
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, num_classes, bias=bias, device=device)
    else:
        new = nn.Conv2d(
            old.in_channels, num_classes, _pair(old.kernel_size), bias=bias, device=device
        )
        torch.nn.init.normal_(new.weight, std=0.01)
    model.set_submodule(name, new)


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    """Narrow the type: torch declares these fields as tuples of any length."""
    height, width = sizes
    return height, width
