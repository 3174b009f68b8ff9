# SPDX-License-Identifier: AGPL-3.0-or-later
"""What ``detprune list`` says about detectors."""

from collections.abc import Mapping


def list_models() -> Mapping[str, str]:
    """Where a detector comes from."""
    return {
        "model.cfg": "an architecture of Ultralytics: yolov3-tiny.yaml, yolov3-spp.yaml, yolov3.yaml, …",
        "model.weights": "a detection checkpoint (.pt) of Ultralytics 8 or newer",
    }


def list_data() -> Mapping[str, str]:
    """Where images come from."""
    return {
        "data.yaml": "a data set in Ultralytics' form",
        "data.drawn": "shapes on textured backgrounds, drawn on first use",
    }
