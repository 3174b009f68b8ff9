"""The recipe of a classification run."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from detprune.errors import InputError, unknown
from detprune.methods import Pull
from detprune.recipe import Recipe, Section
from detprune_classification.data import DATA_SETS
from detprune_classification.models import check_model_name
from detprune_lightning.spec import ConstrainedSpec, StageSpec, TrainerSpec


class ModelSpec(Section):
    """A network by name; ``weights`` is a checkpoint file, or torchvision's name for its weights."""

    name: str
    weights: str | None = None

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        check_model_name(name)
        return name


class DataSpec(Section):
    """A data set by name; the limits take a class-balanced part of it."""

    name: str = "digits"
    root: Path | None = None
    image_size: int | None = Field(default=None, ge=8)
    augment: bool = True
    train_limit: int | None = Field(default=None, ge=1)
    test_limit: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=128, ge=1)
    workers: int = Field(default=0, ge=0)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in DATA_SETS:
            raise unknown("data set", name, DATA_SETS)
        return name


class Stages(Section):
    """Lengths and optimizers of the stages; without ``dense`` the model's weights are the baseline."""

    dense: StageSpec | None = None
    constrained: ConstrainedSpec
    retrain: StageSpec


class ClassificationRecipe(Recipe):
    """Prune an image classifier."""

    task: Literal["classification"]
    model: ModelSpec
    data: DataSpec = DataSpec()
    stages: Stages
    trainer: TrainerSpec = TrainerSpec()

    @model_validator(mode="after")
    def _baseline_and_rho(self) -> Self:
        if self.stages.dense is None and self.model.weights is None:
            raise InputError(
                "there is no dense baseline: give stages.dense to train one, or model.weights to load one"
            )
        optimizer = self.stages.constrained.optimizer.name
        if isinstance(getattr(self.method, "rho", None), Pull) and optimizer != "sgd":
            raise InputError(
                f"method.rho is chosen by pull, which is worked out for SGD, but "
                f"stages.constrained.optimizer.name is {optimizer!r}; use sgd, or give rho as a number"
            )
        return self
