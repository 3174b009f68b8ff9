# SPDX-License-Identifier: AGPL-3.0-or-later
"""The network that a recipe names, on the CPU."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from detprune.errors import InputError
from detprune_yolo.channels import lacks_channels
from detprune_yolo.descriptions import refuse_fused
from detprune_yolo.detectors import read_layers
from detprune_yolo.kinds import POSE, Kind, kind_of, use_one_to_one
from detprune_yolo.recipe import ModelSpec
from detprune_yolo.weights.checkpoints import load_model


def build_network(
    spec: ModelSpec,
    names: Mapping[int, str],
    *,
    any_classes: bool,
    kpt_shape: Sequence[int] | None = None,
) -> Any:
    """A float32 network of Ultralytics, with the checkpoint's weights or initial ones.

    Args:
        spec: the recipe's model.
        names: classes of the data set.
        kpt_shape: number of key points, and of numbers of each, in the data set; for poses.
        any_classes: it is going to be trained before it is pruned, so that a checkpoint of another
            number of classes only gives the weights that fit, as in Ultralytics' own fine-tuning.
    """
    network: Any
    if spec.weights is None:
        network = _built(
            architecture(spec),
            len(names),
            f"model.cfg is {spec.cfg!r}, which",
            spec.kind,
            kpt_shape,
        )
        network.names, network.nc = dict(names), len(names)
        return network
    network = load_model(spec.weights, trust=spec.unsafe_load)
    refuse_fused(network, spec.weights)
    kind = kind_of(network)
    points = getattr(network, "kpt_shape", None)
    other_points = kind == POSE and kpt_shape is not None and list(points or ()) != list(kpt_shape)
    if other_points and (not any_classes or lacks_channels(network)):
        raise InputError(
            f"{spec.weights} predicts key points of the shape {list(points or ())}, but kpt_shape of the data set is "
            f"{list(kpt_shape or ())}; give the data set of the checkpoint, or train the dense network on this one "
            "first (stages.dense)"
        )
    if any_classes and (network.names != names or other_points):
        loaded = network
        if lacks_channels(loaded):
            raise InputError(
                f"{spec.weights} is a network from which channels were taken out; it keeps its head and so its "
                f"{len(loaded.names)} classes, but the data set has others ({', '.join(names.values())}): train the "
                "dense network on the data set, and prune that"
            )
        what = f"the description of the network in {spec.weights}"
        network = _built(copy.deepcopy(loaded.yaml), len(names), what, kind, kpt_shape)
        network.names = dict(names)  # first, because the head's rows follow the names
        network.load(loaded, verbose=False)
    if not any_classes and len(network.names) == len(names):
        _check_order(network.names, names, spec)
        network.names = dict(names)
    network.nc = len(network.names)  # RT-DETR's loss asks for it
    return network


def _built(
    description: Any, classes: int, what: str, kind: Kind, kpt_shape: Sequence[int] | None
) -> Any:
    """Build the network of a description; Ultralytics also runs it once.

    Raises:
        InputError: it cannot be built.
    """
    points = {"data_kpt_shape": list(kpt_shape)} if kind == POSE and kpt_shape else {}
    try:
        network = kind.network(description, nc=classes, verbose=False, **points)
    except Exception as error:  # any type: a description can call any module with any arguments
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{what} describes no network that Ultralytics can build: {type(error).__name__}: {reason}; each row "
            "of backbone and head is [from, repeats, module, arguments], with modules of Ultralytics or nn.…, "
            "and an activation is written as nn.SiLU()"
        ) from error
    use_one_to_one(network)
    return network


def _check_order(own: Mapping[int, str], names: Mapping[int, str], spec: ModelSpec) -> None:
    places = {name.strip().lower(): index for index, name in names.items()}
    for index, name in own.items():
        other = places.get(name.strip().lower(), index)
        if other != index:
            raise InputError(
                f"{spec.weights} has the class {name!r} as number {index}, the data set as {other}; "
                "put the names of the data yaml, and its labels, in the checkpoint's order, or train a "
                "dense stage first (stages.dense)"
            )


def architecture(spec: ModelSpec) -> dict[str, Any]:
    """Ultralytics' description of an architecture, with the width that the recipe sets.

    Raises:
        InputError: no such architecture, or one whose scales are none.
    """
    layers = read_layers(str(spec.cfg))
    if spec.width is not None:
        if scales := layers.get("scales"):
            # without a scale Ultralytics takes the first
            scale = layers.get("scale") or next(iter(scales))
            try:
                depth, _, most_channels = scales[scale]
            except (TypeError, LookupError, ValueError) as error:
                raise InputError(
                    f"scales in {spec.cfg} are {scales!r}; allowed is a letter with [depth, width, most channels] each"
                ) from error
            # only this scale stays: Ultralytics takes it, because the name of the written file gives none
            layers["scales"] = {scale: [depth, spec.width, most_channels]}
        else:
            layers["width_multiple"] = spec.width
    return layers
