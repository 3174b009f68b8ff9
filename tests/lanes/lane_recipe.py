"""A lane detector that trains in seconds."""

from typing import Any

TINY: dict[str, Any] = {
    "task": "lanes",
    "measure": False,
    "name": "tiny",
    "seed": 3,
    "model": {"trunk": 18, "size": [32, 64], "grid": {"cells": 12, "rows": 8}},
    "data": {"drawn": {"train": 12, "test": 4, "seed": 1}, "batch_size": 6},
    "method": {"name": "slr", "rho": "auto"},
    "set": "unstructured",
    "budget": {"compression": 10, "allocation": "erk"},
    "distillation": {"weight": 0.5},
    "trainer": {"accelerator": "cpu", "progress_bar": False},
    "stages": {
        "dense": {"epochs": 1, "optimizer": {"name": "adam", "lr": 0.001}},
        "constrained": {"epochs": 2, "optimizer": {"lr": 0.01}},
        "retrain": {"epochs": 1, "optimizer": {"lr": 0.01}},
    },
}
