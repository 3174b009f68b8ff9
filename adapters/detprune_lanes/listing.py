"""Names and descriptions for ``detprune list``: sources of lane detectors and of frames."""

from collections.abc import Mapping


def list_models() -> Mapping[str, str]:
    """The keys of a recipe that a lane detector comes from."""
    return {
        "model.trunk": "the network, from 18 (ResNet-18) to 101wide, with initial weights",
        "model.weights": "a checkpoint (.pth) of Ultra-Fast-Lane-Detection",
    }


def list_data() -> Mapping[str, str]:
    """The keys of a recipe that frames come from."""
    return {
        "data.root": "TuSimple: label files, and images at their raw_file",
        "data.drawn": "roads with random lanes or those of label files, drawn on first use",
    }
