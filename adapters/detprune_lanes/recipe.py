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
        trunk: the ResNet, by the original's names: 18, 34, 50, 101, 152, 50next, 101next, 50wide, 101wide.
        size: height and width of the input, multiples of 32.
        grid: the rows in which lanes are looked for, and the cells along each row.
        auxiliary: whether the segmentation branch is trained too.
        deploy_auxiliary: whether ``pruned.pt`` keeps that branch.
        weights: a checkpoint that the whole network starts with, from the original code or from detprune.
        imagenet: a file of torchvision's weights that the trunk starts with.
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
                "model.imagenet and model.weights are both given, but weights are those of the whole network, "
                "its trunk included; leave one of them out"
            )
        return self


class DataSpec(Section):
    """The frames.

    Attributes:
        root: folder of the images; each label's ``raw_file`` is a path below it.
        train, test: label files, as paths below ``root`` or absolute.
        drawn: settings of drawn roads, used in place of ``root``; they go into the user's cache folder.
        augment: how training frames are varied; null: not at all.
        train_limit, test_limit: number of frames to use, spread evenly over all; null: all.
        batch_size: frames in a batch.
        workers: processes that load frames.
        cache: whether decoded frames, at the network's width, are kept in the user's cache folder.
        pictures: folder of other road images; the report shows the lanes found on them.
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
        data: the frames.
        loss: weights of the terms of the loss.
    """

    task: Literal["lanes"]
    model: ModelSpec = ModelSpec()
    data: DataSpec
    loss: LaneLoss = LaneLoss()

    @property
    def has_weights(self) -> bool:
        """Whether the recipe names weights that the network starts with."""
        return self.model.weights is not None
