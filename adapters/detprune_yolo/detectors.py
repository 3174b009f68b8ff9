# SPDX-License-Identifier: AGPL-3.0-or-later
"""The check whether a network of Ultralytics can be pruned, for recipes, checkpoints and trainers alike."""

from pathlib import Path
from typing import Any

import yaml
from torch import nn
from ultralytics.nn.tasks import yaml_model_load

from detprune.errors import InputError
from detprune.files import load_yaml
from detprune_yolo.descriptions import check_description, check_network, shown
from detprune_yolo.kinds import KINDS, Kind, kind_of_head, unsupported
from detprune_yolo.weights.references import classes_in

_HEAD_MODULE, _NETWORK_MODULE = "ultralytics.nn.modules.head.", "ultralytics.nn.tasks."


def check_start(model: object, task: object = None) -> Kind | None:
    """Refuse a model that training cannot start with, before anything is written.

    Args:
        model: a checkpoint, a description (``*.yaml``), or a network; nothing is known of other values.
        task: Ultralytics' task, if it is set.

    Returns:
        The kind of the network; None if nothing is known of it.

    Raises:
        InputError: a network that cannot be pruned, or one of another task.
    """
    kind = None
    if isinstance(model, nn.Module):
        kind = check_network(model, "the model")
    elif isinstance(model, str | Path):
        if Path(model).suffix.lower() in (".yaml", ".yml"):
            kind = kind_of_head(str(read_layers(str(model))["head"][-1][2]))
        elif Path(model).suffix.lower() == ".pt" and Path(model).is_file():
            kind = _kind_of_classes(classes_in(Path(model)), model)
    if task is not None and task not in {known.task for known in KINDS}:
        raise unsupported(f"{shown(model)} is for the task {task!r}")
    if kind is not None and task not in (None, kind.task):
        raise InputError(
            f"the task is {task!r}, but {shown(model)} is a network for {kind.description()}; leave the task out, or "
            "give a network of that task"
        )
    return kind


def read_layers(cfg: str) -> dict[str, Any]:
    """Ultralytics' description of a network.

    Raises:
        InputError: there is none, it cannot be used, or it describes a network that cannot be pruned.
    """
    unknown = InputError(
        f"model.cfg is {cfg!r}, which is neither an architecture of Ultralytics (yolov3-tiny.yaml, yolo11n.yaml, "
        "yolov8n-seg.yaml, …) nor a readable file with backbone and head"
    )
    if "://" in cfg:
        raise unknown
    if Path(cfg).is_file():  # a file of the user: limited in size, and errors name the line
        load_yaml(Path(cfg), strict=False)
    try:
        layers: dict[str, Any] = yaml_model_load(cfg)
    except (OSError, ValueError, TypeError, AssertionError, yaml.YAMLError) as error:
        raise unknown from error
    rows = layers.get("head")
    if not isinstance(rows, list) or not rows or not isinstance(layers.get("backbone"), list):
        raise unknown
    if not isinstance(rows[-1], list) or len(rows[-1]) != 4:
        raise unknown
    if kind_of_head(head := str(rows[-1][2])) is None:
        raise unsupported(f"{cfg} ends in {head}")
    check_description(layers, f"model.cfg is {cfg!r}")
    return layers


def _kind_of_classes(names: set[str], what: object) -> Kind | None:
    """The kind of the network in a file, by the classes that the file refers to; None if it refers to none."""
    heads = {n.removeprefix(_HEAD_MODULE) for n in names if n.startswith(_HEAD_MODULE)}
    networks = {n.removeprefix(_NETWORK_MODULE) for n in names if n.startswith(_NETWORK_MODULE)}
    known = {head for kind in KINDS for head in kind.heads}
    if other := sorted(heads - known):
        raise unsupported(f"{what} holds a {other[0]}")
    if other := sorted(networks - {kind.network.__name__ for kind in KINDS}):
        raise unsupported(f"{what} holds a {other[0]}")
    fitting = [k for k in KINDS if k.network.__name__ in networks and heads & {*k.heads}]
    return fitting[0] if fitting else None
