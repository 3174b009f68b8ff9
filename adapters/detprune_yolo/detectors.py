# SPDX-License-Identifier: AGPL-3.0-or-later
"""The check whether a network of Ultralytics can be pruned, for recipes, checkpoints and trainers alike."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import nn
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

from detprune.errors import InputError
from detprune.files import load_yaml
from detprune_yolo.descriptions import check_description
from detprune_yolo.weights.diagnosis import classes_in

HEADS = ("Detect", "v10Detect")
_HEAD_MODULE, _NETWORK_MODULE = "ultralytics.nn.modules.head.", "ultralytics.nn.tasks."


def check_start(model: object, task: object = None) -> None:
    """Refuse a model that training cannot start with, before anything is written.

    Args:
        model: a checkpoint, a description (``*.yaml``), or a network; nothing is known of other values.
        task: Ultralytics' task, if it is set.

    Raises:
        InputError: another task than detection, or another network than a detector of fixed classes.
    """
    if isinstance(model, nn.Module):
        check_network(model, "the model")
    elif isinstance(model, str | Path):
        if Path(model).suffix.lower() in (".yaml", ".yml"):
            read_layers(str(model))
        elif Path(model).suffix.lower() == ".pt" and Path(model).is_file():
            _check_classes(classes_in(Path(model)), model)
    if task not in (None, "detect"):
        raise _other(model, f"is for the task {task!r}")


def read_layers(cfg: str) -> dict[str, Any]:
    """Ultralytics' description of a detector.

    Raises:
        InputError: there is none, it cannot be used, or it describes another network.
    """
    unknown = InputError(
        f"model.cfg is {cfg!r}, which is neither an architecture of Ultralytics (yolov3-tiny.yaml, "
        "yolov3-spp.yaml, yolov3.yaml, …) nor a readable file with backbone and head"
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
    if (head := str(rows[-1][2])) not in HEADS:
        raise _other(cfg, f"ends in {head}")
    check_description(layers, f"model.cfg is {cfg!r}")
    return layers


def check_network(network: nn.Module, what: object) -> None:
    """Refuse a network that is not a detector with fixed classes.

    Raises:
        InputError: it is another, or its description calls something else than layers.
    """
    layers = getattr(network, "model", None)
    head = type(layers[-1]).__name__ if isinstance(layers, nn.Sequential) else "something else"
    kind = type(network).__name__
    if not isinstance(network, DetectionModel) or head not in HEADS:
        raise _other(what, f"holds a {kind}, which ends in {head}")
    args = getattr(network, "args", None) or {}
    task = args.get("task") if isinstance(args, Mapping) else getattr(args, "task", None)
    if task not in (None, "detect"):
        raise _other(what, f"holds a {kind} for the task {task!r}")
    check_description(getattr(network, "yaml", None), what)  # training builds the network from it


def _check_classes(names: set[str], what: object) -> None:
    heads = {n.removeprefix(_HEAD_MODULE) for n in names if n.startswith(_HEAD_MODULE)}
    kinds = {n.removeprefix(_NETWORK_MODULE) for n in names if n.startswith(_NETWORK_MODULE)}
    if other := sorted(heads - {*HEADS}) or sorted(kinds - {"DetectionModel"}):
        raise _other(what, f"holds a {other[0]}")


def _other(what: object, problem: str) -> InputError:
    shown = type(what).__name__ if isinstance(what, nn.Module) else what
    return InputError(
        f"{shown} {problem}; only detectors with fixed classes (a Detect head, task 'detect') can be "
        "pruned here, no networks for segmentation, poses, oriented boxes, depth or classification, no "
        "RT-DETR, YOLO-World or YOLOE; take a detector, such as yolov3-tinyu.pt or yolo11n.yaml"
    )
