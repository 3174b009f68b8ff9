# SPDX-License-Identifier: AGPL-3.0-or-later
from .channels import smaller_detector as smaller_detector
from .forward import run_detector as run_detector
from .recipe import DetectionRecipe as DetectionRecipe
from .task import DetectionTask as DetectionTask
from .training.constrained import constrained as constrained
from .training.constrained import retraining as retraining
from .training.trainers import ConstrainedTrainer as ConstrainedTrainer
from .training.trainers import RetrainingTrainer as RetrainingTrainer

__all__: list[str]
