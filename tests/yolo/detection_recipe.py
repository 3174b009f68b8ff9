"""A detector that trains in seconds: accumulation that does not fit the epochs, mosaic closed half-way."""

from typing import Any

TINY: dict[str, Any] = {
    "task": "yolo",
    "measure": False,
    "name": "tiny",
    "seed": 3,
    "model": {"cfg": "yolov3-tiny.yaml", "width": 0.0625},
    "data": {
        "drawn": {"train": 30, "val": 10, "test": 6, "size": 64, "seed": 1},
        "split": "test",
    },
    "method": {"name": "slr", "rho": "auto"},
    "set": "unstructured",
    "budget": {"compression": 3.33},
    "train": {
        "imgsz": 64,
        "batch": 8,
        "nbs": 24,
        "optimizer": "SGD",
        "device": "cpu",
        "warmup_epochs": 1,
        "close_mosaic": 1,
        "verbose": False,
    },
    "stages": {
        "dense": {"epochs": 3, "train": {"lr0": 0.02}},
        "constrained": {"epochs": 3, "every": 0.75, "check_every": 1, "train": {"lr0": 0.01}},
        "retrain": {"epochs": 3, "train": {"lr0": 0.01}},
    },
}
