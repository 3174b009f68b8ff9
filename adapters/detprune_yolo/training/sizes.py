# SPDX-License-Identifier: AGPL-3.0-or-later
"""The check for images that are too small to train on; Ultralytics would fail on them during training."""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from detprune.errors import InputError
from detprune_yolo.kinds import CLASSIFY, RTDETR, head_of, kind_of_head
from detprune_yolo.options import images_of_a_batch

_CANDIDATES = 10
"""Candidates per object in Ultralytics' task-aligned assigner: feature maps need at least so many places."""


def check_sizes(model: nn.Module, options: Mapping[str, Any], images: int | None = None) -> None:
    """Refuse image sizes at which no batch can be trained.

    Args:
        model: the detector; its strides count.
        options: Ultralytics' options of the stage.
        images: images in an epoch; None where that is not known.

    Raises:
        InputError: the smallest size has fewer places than an object is assigned to, or one value per channel in
            the last batch, of which batch norm has no variance.
    """
    stated: Any = model.stride
    strides = [int(value) for value in stated]
    stride = max(*strides, 32)
    imgsz, spread = int(options.get("imgsz", 640)), float(options.get("multi_scale") or 0.0)
    # a single size is rounded up, those of multi_scale are rounded down
    least = max(stride, int(imgsz * (1 - spread))) // stride * stride
    if not spread:
        least = math.ceil(imgsz / stride) * stride
    given = f"imgsz is {imgsz}" + (f" and multi_scale {spread:g}" if spread else "")
    way_out = "give a larger imgsz" + (", or a smaller multi_scale" if spread else "")
    places = sum((least // own) ** 2 for own in strides)
    of_grid = kind_of_head(head_of(model)) not in (CLASSIFY, RTDETR)  # they assign no places
    if of_grid and places < _CANDIDATES:
        raise InputError(
            f"{given}, so that images of {least} pixels occur, on which this network's feature maps have "
            f"{places} places; Ultralytics needs {_CANDIDATES} or more for every object: {way_out}"
        )
    batch = images_of_a_batch(options)
    if images and batch and least < 2 * stride and images % batch == (1 if batch > 1 else 0):
        raise InputError(
            f"{given}, so that images of {least} pixels occur, and the last batch has one image ({images} "
            f"images in batches of {batch}): batch norm then has one value per channel. Change batch, or {way_out}"
        )
