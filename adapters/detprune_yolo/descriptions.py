# SPDX-License-Identifier: AGPL-3.0-or-later
"""The check that a network can be pruned, and that its description calls layers and nothing else.

Ultralytics evaluates ``activation`` as Python, and calls whatever of its module ``ultralytics.nn.tasks`` a row names.
"""

import ast
from collections.abc import Mapping
from typing import Any

import torchvision
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv

from detprune.errors import InputError
from detprune_yolo.kinds import Kind, kind_of

CHANNELS_REMOVED = (
    "channels were taken out of this network by detprune, so that it cannot be built from its yaml: train it with "
    "trainer=detprune_yolo.RetrainingTrainer"
)
"""The name of the first layer in the yaml of such a network."""

_FETCHING = tasks.TorchVision.__name__
"""The layer that builds one of torchvision's networks, by default with weights from the network."""


def check_description(description: object, what: object) -> None:
    """Refuse a description by which other code than that of layers would run, or of other images than colour ones.

    Args:
        description: Ultralytics' description of a network; other values than a mapping are left to Ultralytics.
        what: file or key that holds it, for the error.

    Raises:
        InputError: ``activation`` is no call of a layer of ``torch.nn`` with plain values, a row names no layer, or
            one that downloads, or the images have not three channels.
    """
    if not isinstance(description, Mapping):
        return
    channels = description.get("channels") or description.get("ch") or 3
    if channels != 3:
        raise InputError(
            f"{what} takes images of {channels} channels, but networks are pruned on colour images here (3), for which "
            "Ultralytics would give it a first layer without training; take a network for colour images"
        )
    activation = description.get("activation")
    if activation and not _is_layer_call(activation):
        raise InputError(
            f"{what}: activation is {str(activation)[:80]!r}, which Ultralytics would run as code; allowed is a layer "
            "of torch.nn with plain values, such as nn.SiLU() or nn.LeakyReLU(0.1)"
        )
    for part in ("backbone", "head"):
        rows = description.get(part)
        for row in rows if isinstance(rows, list) else ():
            named = row[2] if isinstance(row, list | tuple) and len(row) > 2 else None
            if isinstance(named, str) and named != CHANNELS_REMOVED and not _is_layer(named):
                raise InputError(
                    f"{what}: a row of {part} calls {named[:80]!r}, which is no layer; allowed are layers of "
                    "Ultralytics (Conv), nn.… and torchvision.ops.…"
                )
            if named == _FETCHING:
                raise InputError(
                    f"{what}: a row of {part} calls {_FETCHING}, which fetches weights of another network, and whose "
                    "checkpoints safe loading refuses; describe the backbone by layers of Ultralytics"
                )


def _is_layer(name: str) -> bool:
    """Whether Ultralytics finds a layer under a name; whole networks would build other descriptions, unchecked."""
    if name.startswith("nn."):
        found: Any = getattr(nn, name.removeprefix("nn."), None)
    elif name.startswith("torchvision.ops."):
        found = getattr(torchvision.ops, name.removeprefix("torchvision.ops."), None)
    else:
        found = getattr(tasks, name, None)
    is_layer = isinstance(found, type) and issubclass(found, nn.Module)
    return is_layer and not issubclass(found, tasks.BaseModel)


def _is_layer_call(text: object) -> bool:
    try:
        call = ast.parse(str(text).strip(), mode="eval").body
        if not isinstance(call, ast.Call):
            return False
        for value in (*call.args, *(keyword.value for keyword in call.keywords)):
            ast.literal_eval(value)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return False
    name = ast.unparse(call.func).removeprefix("torch.")
    return name.startswith("nn.") and _is_layer(name)


def check_network(network: nn.Module, what: object) -> Kind:
    """Refuse a network that cannot be pruned, or that says that it is for another task than its head.

    Raises:
        InputError: it is another, or its description calls something else than layers.
    """
    kind = kind_of(network, shown(what))
    args = getattr(network, "args", None) or {}
    task = args.get("task") if isinstance(args, Mapping) else getattr(args, "task", None)
    if task not in (None, kind.task):
        raise InputError(
            f"{shown(what)} holds a {type(network).__name__} for the task {task!r}, but its head is for "
            f"{kind.description()}; give a checkpoint that Ultralytics or detprune wrote"
        )
    check_description(
        getattr(network, "yaml", None), shown(what)
    )  # training builds the network from it
    return kind


def refuse_fused(network: nn.Module, what: object) -> None:
    """Refuse a network whose batch norms were merged into its convolutions, which training builds without that.

    Raises:
        InputError: it was saved after ``fuse()``.
    """
    merged = (m for m in network.modules() if isinstance(m, Conv) and not hasattr(m, "bn"))
    if next(merged, None) is not None:
        raise InputError(
            f"{shown(what)} was saved after fuse(): batch norm is merged into the convolutions, so that it cannot be "
            "trained; give the checkpoint from before, such as the best.pt of its training"
        )


def shown(what: object) -> object:
    """What an error names: a network by its class, anything else as it is."""
    return type(what).__name__ if isinstance(what, nn.Module) else what
