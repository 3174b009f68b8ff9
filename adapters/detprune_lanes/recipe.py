"""The recipe of a lane detection run."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from detprune.errors import InputError, unknown
from detprune.run.recipe import Section
from detprune_lanes.data.augment import Augmentation
from detprune_lanes.data.roads.drawn import DrawnRoads
from detprune_lanes.grid import Grid
from detprune_lanes.losses import LaneLoss
from detprune_lanes.network.model import checked_size
from detprune_lanes.network.trunks import TRUNKS
from detprune_lightning.recipe import LightningRecipe


class ModelSpec(Section):
    """The network.

    Attributes:
        trunk: of the original's names: 18, 34, 50, 101, 152, 50next, 101next, 50wide, 101wide.
        size: height and width of its input, multiples of 32.
        grid: cells across the image and rows down it.
        auxiliary: train with the segmentation branch.
        deploy_auxiliary: keep that branch in ``pruned.pt``.
        weights: a checkpoint to begin with, of the original or of ours.
        imagenet: a file of torchvision's weights for the trunk, to begin with.
    """

    trunk: str = "18"
    size: tuple[int, int] = (288, 800)
    grid: Grid = Grid()
    auxiliary: bool = True
    deploy_auxiliary: bool = True
    weights: Path | None = None
    imagenet: Path | None = None

    @field_validator("trunk", mode="before")
    @classmethod
    def _known(cls, name: object) -> str:
        if str(name) not in TRUNKS:  # YAML reads 18 as a number
            raise unknown("trunk", str(name), TRUNKS)
        return str(name)

    @field_validator("size")
    @classmethod
    def _fits(cls, size: tuple[int, int]) -> tuple[int, int]:
        return checked_size(size)

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.weights is not None and self.imagenet is not None:
            raise InputError(
                "model.imagenet is a start for the trunk, and model.weights are of the whole network; "
                "give one of them"
            )
        return self


class DataSpec(Section):
    """The frames.

    Attributes:
        root: folder below which the label files' ``raw_file`` lie.
        train, test: label files, below ``root`` or of their own path.
        drawn: roads that are drawn instead, into the user's cache folder.
        augment: how training frames are varied; null for not at all.
        train_limit, test_limit: a part of the frames, spread evenly over them.
        batch_size: frames in a batch.
        workers: processes that load frames.
        cache: keep decoded frames, at the network's width, in the user's cache folder.
        pictures: folder of other road images, on which the report shows the lanes found.
    """

    root: Path | None = None
    train: tuple[str, ...] = ("label_data_*.json",)
    test: tuple[str, ...] = ("test_label.json",)
    drawn: DrawnRoads | None = None
    augment: Augmentation | None = Augmentation()
    train_limit: int | None = Field(default=None, ge=1)
    test_limit: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=32, ge=1, le=1_000_000)
    workers: int = Field(default=0, ge=0, le=256)
    cache: bool = True
    pictures: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.root is None) == (self.drawn is None):
            raise InputError("data needs either root, the folder of TuSimple's files, or drawn: {}")
        return self


class LaneRecipe(LightningRecipe):
    """Prune an Ultra-Fast-Lane-Detection network.

    Attributes:
        model: the network.
        data: its frames.
        loss: weights of its terms.
    """

    task: Literal["lanes"]
    model: ModelSpec = ModelSpec()
    data: DataSpec
    loss: LaneLoss = LaneLoss()

    @property
    def has_weights(self) -> bool:
        """Whether the network begins with weights of its own."""
        return self.model.weights is not None
