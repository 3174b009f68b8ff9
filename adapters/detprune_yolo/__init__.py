# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics YOLO detectors: pruned inside Ultralytics' own trainer.

Ultralytics is licensed AGPL-3.0: importing this package means using a library under that licence.
Nothing else in detprune imports it.
"""

from detprune_yolo import environment

environment.prepare()  # before anything imports ultralytics
environment.settle()

from detprune.task import Adapter  # noqa: E402
from detprune_yolo.channels import run_detector, smaller_detector  # noqa: E402
from detprune_yolo.listing import list_data, list_models  # noqa: E402
from detprune_yolo.recipe import DetectionRecipe  # noqa: E402
from detprune_yolo.task import DetectionTask  # noqa: E402
from detprune_yolo.training.constrained import constrained, retraining  # noqa: E402
from detprune_yolo.training.trainers import ConstrainedTrainer, RetrainingTrainer  # noqa: E402
from detprune_yolo.weights.export import export  # noqa: E402

adapter = Adapter(
    line="YOLO detectors, trained by Ultralytics (AGPL-3.0)",
    recipe=DetectionRecipe,
    task=DetectionTask,
    models=list_models,
    data_sets=list_data,
    export=export,
)

__all__ = [
    "ConstrainedTrainer",
    "DetectionRecipe",
    "DetectionTask",
    "RetrainingTrainer",
    "adapter",
    "constrained",
    "retraining",
    "run_detector",
    "smaller_detector",
]
