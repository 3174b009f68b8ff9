"""What the dense network teaches reaches the loss of the lane detector."""

from typing import Any

import pytest
import torch
from lane_recipe import TINY

from detprune.run.recipe import validate
from detprune_lanes.module import LaneDetector, logits_of
from detprune_lanes.network.model import LaneNetwork
from detprune_lanes.recipe import LaneRecipe
from detprune_lightning.distillation import Distillation, Teacher


@pytest.mark.filterwarnings("ignore:.*self.log.*")
@pytest.mark.parametrize("auxiliary", [True, False])
def test_the_teacher_is_mixed_in(auxiliary: bool) -> None:
    recipe = validate(LaneRecipe, {**TINY, "model": {**TINY["model"], "auxiliary": auxiliary}})
    model = recipe.model
    student, dense = (
        LaneNetwork(model.trunk, model.grid, model.size, use_aux=auxiliary).eval() for _ in range(2)
    )
    frames: Any = None
    images, target = torch.randn(2, 3, *model.size), torch.randint(13, (2, 8, 4))
    batch = [images, target, torch.randint(5, (2, 4, 8))]
    spec = Distillation(weight=0.3)
    alone, taught = (
        LaneDetector(student, recipe.stages.retrain, frames, frames, recipe, teacher)
        for teacher in (None, Teacher(dense, spec))
    )
    with torch.no_grad():
        plain = alone.training_step(batch, 0)
        divergence = spec.divergence(alone(images), logits_of(dense, images))
        mixed = taught.training_step(batch, 0)
    assert float(divergence) > 1e-3
    torch.testing.assert_close(mixed, 0.7 * plain + 0.3 * divergence)
