# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whole channels of detectors: how a detector is run to find them, and how one with fewer channels is trained.

A checkpoint of Ultralytics pickles the network itself, so that a network with fewer channels loads, validates,
predicts and exports. But ``train()`` builds a network anew from its yaml, which describes all channels, and copies
the weights that fit: it would train a dense network. Therefore the first layer in the yaml of a smaller detector has
an error text as its name: building from this yaml ends in a KeyError with that text. The adapter's trainers take
the network itself.
"""

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules.block import SPPELAN, ADown, C2f, RepNCSPELAN4, RepVGGDW
from ultralytics.nn.modules.conv import RepConv

from detprune.budgets import Budget
from detprune.channels import CoupledChannels
from detprune.channels.coupled import call
from detprune.errors import InputError
from detprune.pruner import Pruner
from detprune.sets import SparsitySet
from detprune_yolo.exclusions import detector_budget

CHANNELS_REMOVED = (
    "channels were taken out of this network by detprune, so that it cannot be built from its yaml: train it with "
    "trainer=detprune_yolo.RetrainingTrainer"
)
"""The name of the first layer in the yaml of such a network."""

_OF_INFERENCE = ("export", "anchors", "strides", "shape")
_ABSENT = object()


def run_detector(model: nn.Module, *inputs: Tensor) -> list[dict[str, Tensor]]:
    """Raw predictions of a detector, boxes and scores; in training mode, those of all branches of its head.

    In evaluation mode of the branch alone that inference uses, which is what a fused or exported network
    computes. The features that go into the head are no outputs, though Ultralytics returns them.

    Args:
        model: an Ultralytics ``DetectionModel``; it stays as it is.
        inputs: images, (N, channels, height, width).
    """
    head: Any = model.get_submodule("model")[-1]  # type: ignore[index]
    with _for_inference(head):
        outputs: Any = model(*inputs)
    raw = outputs if head.training else outputs[1]
    branches = [raw["one2many"], raw["one2one"]] if "one2one" in raw else [raw]
    return [{k: v for k, v in own.items() if k != "feats"} for own in branches if own]


@contextmanager
def _for_inference(head: Any) -> Iterator[None]:
    """Run a head without the branch that fusing removes, unless it is in training mode; restore it afterwards."""
    held = {name: vars(head).get(name, _ABSENT) for name in _OF_INFERENCE}
    double = getattr(head, "one2one_cv2", None) is not None and head.cv2 is not None
    prefix = "" if head.end2end else "one2one_"
    idle = ("cv2", "cv3") if double and not head.training else ()
    parts = {f"{prefix}{name}": getattr(head, f"{prefix}{name}") for name in idle}
    try:
        head.export = False
        for name in parts:
            setattr(head, name, None)
        yield
    finally:
        for name, part in parts.items():
            setattr(head, name, part)
        for name, value in held.items():
            if value is not _ABSENT:
                setattr(head, name, value)
            else:
                vars(head).pop(name, None)


def detector_set(given: SparsitySet, model: nn.Module, imgsz: int | Sequence[int]) -> SparsitySet:
    """Return ``CoupledChannels`` with the example input and forward of a detector, if it has none; others unchanged.

    Args:
        given: the user's set.
        model: an Ultralytics ``DetectionModel``.
        imgsz: side of the images in pixels, or (height, width), on which MACs are counted.
    """
    if not isinstance(given, CoupledChannels):
        return given
    inputs = given.example_inputs if given.example_inputs is not None else example(model, imgsz)
    forward = run_detector if given.forward is call else given.forward
    return dataclasses.replace(given, example_inputs=inputs, forward=forward)


def example(model: nn.Module, imgsz: int | Sequence[int]) -> Tensor:
    """An image of noise, (1, channels, height, width), on the model's device."""
    weight = next(m for m in model.modules() if isinstance(m, nn.Conv2d)).weight
    size = (imgsz, imgsz) if isinstance(imgsz, int) else tuple(imgsz)
    noise = torch.rand(1, weight.shape[1], *size, generator=torch.Generator().manual_seed(0))
    return noise.to(weight.device, weight.dtype)


def budget_of(
    budget: Budget,
    sparsity_set: SparsitySet,
    model: nn.Module,
    freeze: int | Sequence[int | str] | None = None,
) -> Budget:
    """The budget with a detector's default exclusions; for whole channels there are none.

    The first convolution has channels like any other, the last ones of the head are outputs, branches
    that fusing merges lose the same channels, and frozen layers are known by ``requires_grad``.

    Args:
        budget, sparsity_set: the user's budget and set.
        model: an Ultralytics ``DetectionModel``.
        freeze: Ultralytics' option: the first n layers, or a list of layer numbers and names.
    """
    if isinstance(sparsity_set, CoupledChannels):
        return budget
    return detector_budget(budget, model, freeze)


def smaller_detector(pruner: Pruner) -> Any:
    """``pruner.shrink()`` for a detector; the widths that Ultralytics' modules store are updated too.

    Args:
        pruner: after ``hard_prune()``, of an Ultralytics ``DetectionModel``.

    Returns:
        A ``DetectionModel`` that says in its yaml that it cannot be built from it.
    """
    network = pruner.shrink()
    state_widths(network)
    mark(network)
    return network


def state_widths(network: nn.Module) -> None:
    """Update the numbers of channels that Ultralytics' modules store to those that they have.

    ``C2f.forward_split``, which exports use, cuts at ``c``.
    """
    for module in network.modules():
        own: Any = module
        if isinstance(module, C2f | RepNCSPELAN4):
            own.c = own.cv1.conv.out_channels // 2
        elif isinstance(module, ADown | SPPELAN):
            own.c = own.cv1.conv.out_channels
        elif isinstance(module, RepConv) and hasattr(module, "conv1"):
            own.c1, own.c2 = own.conv1.conv.in_channels, own.conv1.conv.out_channels
        elif isinstance(module, RepVGGDW) and hasattr(module, "conv1"):
            own.dim = own.conv.conv.out_channels
    for layer in network.get_submodule("model").children():
        counted: Any = layer
        counted.np = sum(p.numel() for p in layer.parameters())  # Ultralytics' count of parameters


def mark(network: nn.Module) -> None:
    """Mark the yaml of a network that lacks channels, so that building from it ends in an error."""
    described: Any = network
    if not lacks_channels(network):
        row = [-1, 1, CHANNELS_REMOVED, []]
        described.yaml = {**described.yaml, "backbone": [row, *described.yaml["backbone"]]}


def lacks_channels(network: object) -> bool:
    """Whether channels were taken out of a network, so that its yaml does not describe it."""
    return is_marked(getattr(network, "yaml", None))


def is_marked(description: object) -> bool:
    """Whether a yaml is that of a network that lacks channels."""
    rows = description.get("backbone") if isinstance(description, Mapping) else None
    first = rows[0] if isinstance(rows, Sequence) and rows else None
    return isinstance(first, Sequence) and len(first) > 2 and first[2] == CHANNELS_REMOVED


def network_to_train(description: object, weights: Any, data: Mapping[str, Any]) -> Any | None:
    """A copy of a network that lacks channels, for training; None for a network that its yaml describes.

    Args:
        description: the yaml from which Ultralytics would build a network.
        weights: the network whose weights it would take, or None.
        data: Ultralytics' description of the data set: ``nc`` and ``channels``.

    Raises:
        InputError: other classes or image channels than those of the network, a fused network, or weights that
            do not belong to the yaml.
    """
    removed = is_marked(description)
    if not removed and not lacks_channels(weights):
        return None
    if not removed or not lacks_channels(weights):
        raise InputError(
            "the network with fewer channels can neither be built from its yaml nor give its weights to another: leave "
            "pretrained= out, and give its checkpoint as the model"
        )
    if weights.is_fused():
        raise InputError("the network is fused, so that it cannot be trained; load its file again")
    own = {"nc": len(weights.names), "channels": int(weights.yaml.get("channels", 3))}
    for key, what in (("nc", "classes"), ("channels", "channels in its images")):
        if own[key] != data[key]:
            raise InputError(
                f"the network has {own[key]} {what}, but the data set {data[key]}; a network with channels taken out "
                "keeps its head: train the dense network on this data set first, and then prune it"
            )
    network = copy.deepcopy(weights).float()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(".dfl." not in name)
    return network.train()
