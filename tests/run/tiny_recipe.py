"""A recipe small enough to run whole in a test."""

from typing import Any

TINY: dict[str, Any] = {
    "task": "classification",
    "name": "tiny",
    "seed": 3,
    "measure": False,
    "model": {"name": "cifar_resnet20"},
    "data": {"name": "digits", "batch_size": 32, "train_limit": 160, "test_limit": 100},
    "method": {"name": "slr", "rho": "auto"},
    "set": "unstructured",
    "budget": {"compression": 10},
    "stages": {
        "dense": {"epochs": 3, "optimizer": {"lr": 0.1}},
        "constrained": {"epochs": 3, "every": 0.5, "check_every": 2, "optimizer": {"lr": 0.02}},
        "retrain": {"epochs": 3, "optimizer": {"lr": 0.02}},
    },
    "trainer": {"accelerator": "cpu", "devices": 1, "progress_bar": False},
}
