# SPDX-License-Identifier: AGPL-3.0-or-later
"""Names and descriptions for ``detprune list``: sources of detectors and of images."""

from collections.abc import Mapping


def list_models() -> Mapping[str, str]:
    """The keys of a recipe that a detector comes from."""
    return {
        "model.cfg": "an architecture of Ultralytics: yolov3-tiny.yaml, yolo11n.yaml, yolov8n-seg.yaml, …",
        "model.weights": "a checkpoint (.pt) of Ultralytics 8 or newer: detect, segment, pose, obb, classify, RT-DETR",
    }


def list_data() -> Mapping[str, str]:
    """The keys of a recipe that images come from."""
    return {
        "data.yaml": "a data set file in Ultralytics' format; for classification a folder",
        "data.drawn": "shapes on textured backgrounds with the labels of the task, drawn on first use",
    }
