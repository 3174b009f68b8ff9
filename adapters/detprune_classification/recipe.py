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
        name: name of the network; ``detprune list`` shows all.
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
        name: name of the data set; ``detprune list`` shows all.
        root: folder of its files.
        image_size: side of the images in pixels; null: the data set's own.
        augment: whether training images are augmented (shifted, cropped, flipped: as fits the data set).
        train_limit, test_limit: number of images to use, as many of each class as of any other; null: all.
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
        data: the data set.
        label_smoothing: label smoothing of the cross entropy, in all stages.
    """

    task: Literal["classification"]
    model: ModelSpec
    data: DataSpec = DataSpec()
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    @property
    def has_weights(self) -> bool:
        """Whether the recipe names weights that the model starts with."""
        return self.model.weights is not None
