"""The recipe of a classification run."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from detprune.errors import unknown
from detprune.run.recipe import Section
from detprune_classification.data import DATA_SETS
from detprune_classification.models import check_model_name
from detprune_lightning.recipe import LightningRecipe


class ModelSpec(Section):
    """A network.

    Attributes:
        name: one of those that ``detprune list`` shows.
        weights: a checkpoint file, or torchvision's name for its weights.
    """

    name: str
    weights: str | None = None

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        check_model_name(name)
        return name


class DataSpec(Section):
    """A data set.

    Attributes:
        name: one of those that ``detprune list`` shows.
        root: its folder.
        image_size: pixels a side; null: the data set's own.
        augment: vary the training images.
        train_limit, test_limit: a class-balanced part of the images.
        batch_size: images in a batch.
        workers: processes that load images.
    """

    name: str = "digits"
    root: Path | None = None
    image_size: int | None = Field(default=None, ge=8, le=8192)
    augment: bool = True
    train_limit: int | None = Field(default=None, ge=1)
    test_limit: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=128, ge=1, le=1_000_000)
    workers: int = Field(default=0, ge=0, le=256)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in DATA_SETS:
            raise unknown("data set", name, DATA_SETS)
        return name


class ClassificationRecipe(LightningRecipe):
    """Prune an image classifier.

    Attributes:
        model: the network.
        data: its images.
        label_smoothing: of the cross entropy in all stages.
    """

    task: Literal["classification"]
    model: ModelSpec
    data: DataSpec = DataSpec()
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    @property
    def has_weights(self) -> bool:
        """Whether the model begins with weights of its own."""
        return self.model.weights is not None
