# SPDX-License-Identifier: AGPL-3.0-or-later
"""Names and descriptions for ``detprune list``: sources of detectors and of images."""

from collections.abc import Mapping


def list_models() -> Mapping[str, str]:
    """The keys of a recipe that a detector comes from."""
    return {
        "model.cfg": "an architecture of Ultralytics: yolov3-tiny.yaml, yolov3-spp.yaml, yolov3.yaml, …",
        "model.weights": "a detection checkpoint (.pt) of Ultralytics 8 or newer",
    }


def list_data() -> Mapping[str, str]:
    """The keys of a recipe that images come from."""
    return {
        "data.yaml": "a data set file in Ultralytics' format",
        "data.drawn": "shapes on textured backgrounds, drawn on first use",
    }
