"""The part of a recipe that all adapters share whose stages Lightning trains."""

from pathlib import Path
from typing import Self

from pydantic import model_validator

from detprune.errors import InputError
from detprune.run.recipe import Recipe, Section, Settings
from detprune_lightning.distillation import Distillation
from detprune_lightning.spec import ConstrainedSpec, StageSpec, TrainerSpec


class Stages(Section):
    """Lengths and optimizers of the stages; without ``dense`` the recipe must name the dense weights.

    Attributes:
        dense: training of the dense network.
        constrained: training under the method, up to hard pruning.
        retrain: training with the masks, or of the smaller network.
    """

    dense: StageSpec | None = None
    constrained: ConstrainedSpec
    retrain: StageSpec


class LightningRecipe(Recipe):
    """Base of the recipes; a subclass adds model and data, and says whether it names weights.

    Attributes:
        stages: length and optimizer of each training.
        distillation: how the dense network teaches constrained training and masked retraining; null: it does not.
        trainer: device and precision of the training.
    """

    stages: Stages
    distillation: Distillation | None = None
    trainer: TrainerSpec = TrainerSpec()

    @property
    def pruning_epochs(self) -> int:
        """Epochs of constrained training and masked retraining together."""
        return self.stages.constrained.epochs + self.stages.retrain.epochs

    def taught_by_dense(self, run: Path) -> Settings:
        """The weights that the run's dense stage left, unless the recipe names a teacher."""
        if self.distillation is None or self.distillation.teacher is not None:
            return {}
        return {"distillation.teacher": str(run / "checkpoints" / "dense.pt")}

    @model_validator(mode="after")
    def _baseline_and_rho(self) -> Self:
        if self.stages.dense is None and not self.has_weights:
            raise InputError(
                "there is no dense baseline: give stages.dense to train one, or model.weights to load one"
            )
        optimizer = self.stages.constrained.optimizer.name
        if self.method.needs_sgd and optimizer != "sgd":
            raise InputError(
                f"method.rho is chosen by pull, which through the gradient is worked out for SGD, but "
                f"stages.constrained.optimizer.name is {optimizer!r}; leave "
                "penalty out, use sgd, or give rho as a number"
            )
        return self
