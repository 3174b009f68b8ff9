# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whole channels of Ultralytics' networks: the set of one, and how a network with fewer channels is trained.

A checkpoint of Ultralytics pickles the network itself, so that a network with fewer channels loads, validates,
predicts and exports. But ``train()`` builds a network anew from its yaml, which describes all channels, and copies
the weights that fit: it would train a dense network. Therefore the first layer in the yaml of a smaller detector has
an error text as its name: building from this yaml ends in a KeyError with that text. The adapter's trainers take
the network itself.
"""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from ultralytics.nn.modules.block import SPPELAN, ADown, C2f, RepNCSPELAN4, RepVGGDW
from ultralytics.nn.modules.conv import RepConv
from ultralytics.nn.modules.head import RTDETRDecoder

from detprune.budgets import Budget
from detprune.channels import CoupledChannels
from detprune.channels.coupled import call
from detprune.errors import InputError
from detprune.pruner import Pruner
from detprune.sets import SparsitySet
from detprune_yolo.descriptions import CHANNELS_REMOVED
from detprune_yolo.exclusions import detector_budget
from detprune_yolo.forward import example, run_detector


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


def budget_of(
    budget: Budget,
    sparsity_set: SparsitySet,
    model: nn.Module,
    freeze: int | Sequence[int | str] | None = None,
) -> Budget:
    """The budget with a detector's default exclusions; for whole channels there are none.

    The first convolution has channels like any other, the last ones of the head are outputs, branches
    that fusing merges lose the same channels, and frozen layers are known by ``requires_grad``. Of RT-DETR the decoder
    keeps its channels.

    Args:
        budget, sparsity_set: the user's budget and set.
        model: an Ultralytics ``DetectionModel``.
        freeze: Ultralytics' option: the first n layers, or a list of layer numbers and names.
    """
    if isinstance(sparsity_set, CoupledChannels):
        layers: Any = model.get_submodule("model")
        if isinstance(layers[-1], RTDETRDecoder):
            decoder = f"model.{len(layers) - 1}.*"
            return dataclasses.replace(budget, exclude=(*budget.exclude, decoder))
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
        InputError: other classes or image channels than those of the network, or weights that do not belong to the
            yaml.
    """
    removed = is_marked(description)
    if not removed and not lacks_channels(weights):
        return None
    if not removed or not lacks_channels(weights):
        raise InputError(
            "the network with fewer channels can neither be built from its yaml nor give its weights to another: leave "
            "pretrained= out, and give its checkpoint as the model"
        )
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
