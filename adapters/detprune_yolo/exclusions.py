# SPDX-License-Identifier: AGPL-3.0-or-later
"""Layers that stay dense in a network of Ultralytics by default.

The first convolution sees the image, and the last layers of the head give boxes, classes, masks, key points or
angles: each has a small part of the weights, and pruning it costs the most accuracy. Layers that serve the loss alone
are no part of the network that is used. The DFL layer is a fixed integral.
Branches of RepConv (yolov9), RepVGGDW (yolov10) and Conv2 are added to one convolution when a network is
fused or exported: a weight of the sum is zero only where it is zero in all branches.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from torch import nn
from ultralytics.nn.modules.block import RepVGGDW
from ultralytics.nn.modules.conv import Conv2, RepConv

from detprune.budgets import Budget, matches
from detprune.errors import InputError, listed
from detprune_yolo.outputs import output_weights


def detector_budget(
    budget: Budget, model: nn.Module, freeze: int | Sequence[int | str] | None = None
) -> Budget:
    """The budget with the default exclusions; a budget with ``include`` is returned as it is.

    Args:
        budget: the user's budget.
        model: an Ultralytics ``DetectionModel``.
        freeze: Ultralytics' option: the first n layers, or a list of layer numbers and names.
    """
    if budget.include is not None:
        return budget
    weights = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), nn.Parameter) and module.weight.dim() >= 2
    }
    left = {*_first_and_last(model), *merged_branches(model), *_frozen(weights, freeze)} & weights
    return dataclasses.replace(budget, exclude=(*budget.exclude, *sorted(left)))


def merged_branches(model: nn.Module) -> list[str]:
    """Weights that fusing adds to others, so that their zeros vanish."""
    return [
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, RepConv | RepVGGDW | Conv2)
        for name, parameter in module.named_parameters()
        if parameter.dim() >= 2
    ]


def merged_note(budget: Budget, model: nn.Module) -> str | None:
    """The plan's note on merged branches; None if there are none.

    Args:
        budget: the user's budget.
        model: an Ultralytics ``DetectionModel``.
    """
    merged = merged_branches(model)
    if budget.include is not None:
        merged = [n for n in merged if any(matches(n, p) for p in budget.include)]
        merged = [n for n in merged if not any(matches(n, p) for p in budget.exclude)]
    if not merged:
        return None
    size = sum(model.get_parameter(name).numel() for name in merged)
    what = f"{len(merged)} weights of branches ({size:,} numbers; {merged[0]}, …)"
    if budget.include is not None:
        return (
            f"budget.include names {what} that are added to others when the network is fused or exported: "
            "their zeros vanish there, and detprune export will refuse"
        )
    return f"left dense: {what} that are added to others when the network is fused or exported"


def _first_and_last(model: nn.Module) -> Iterator[str]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            yield f"{name}.weight"
            break
    yield from (f"{name}.weight" for name, _ in model.named_modules() if ".dfl." in f".{name}.")
    for names in output_weights(model):
        yield from names


def _frozen(weights: set[str], freeze: int | Sequence[int | str] | None) -> Iterator[str]:
    """Names that Ultralytics' trainer freezes: its rule is a substring of the name."""
    for name in weights:
        if any(part in name for part in _frozen_parts(freeze)):
            yield name


def freeze_layers(model: nn.Module, freeze: int | Sequence[int | str] | None) -> None:
    """Freeze the layers that Ultralytics' trainer will freeze by the option ``freeze``."""
    parts = _frozen_parts(freeze)
    for name, parameter in model.named_parameters():
        if any(part in name for part in parts):
            parameter.requires_grad_(False)


def check_not_frozen(
    budget: Budget, model: nn.Module, freeze: int | Sequence[int | str] | None
) -> None:
    """Refuse a budget that names weights which Ultralytics' trainer freezes.

    Args:
        budget: the user's budget; without ``include`` frozen weights stay dense.
        model: an Ultralytics ``DetectionModel``.
        freeze: Ultralytics' option.
    """
    named = {
        name
        for name, parameter in model.named_parameters()
        if parameter.dim() >= 2
        and any(matches(name, pattern) for pattern in budget.include or ())
        and not any(matches(name, pattern) for pattern in budget.exclude)
    }
    if both := sorted(_frozen(named, freeze)):
        raise InputError(
            f"budget.include names {listed(both)}, which freeze ({freeze!r}) holds fixed in constrained training, so "
            "that training cannot make up for their zeros; take them out of include, or out of freeze"
        )


def frozen_batch_norms(
    model: nn.Module, freeze: int | Sequence[int | str] | None
) -> list[nn.Module]:
    """Modules that Ultralytics' trainer freezes; their batch norms keep their statistics during training."""
    parts = _frozen_parts(freeze)
    return [m for name, m in model.named_modules() if any(part in f"{name}." for part in parts)]


def _frozen_parts(freeze: int | Sequence[int | str] | None) -> list[str]:
    numbers = range(freeze) if isinstance(freeze, int) else freeze or ()
    return [f"model.{number}." for number in numbers]
