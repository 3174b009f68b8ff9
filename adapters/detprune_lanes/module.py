"""The LightningModule of lane detection, and the frames it is trained and measured on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric

import lightning as L
from detprune_lanes.data.frames import LaneFrames
from detprune_lanes.data.labels import Frame
from detprune_lanes.decode import decode
from detprune_lanes.grid import Grid
from detprune_lanes.measure.tusimple import Scores, score
from detprune_lanes.network.model import LaneNetwork
from detprune_lanes.recipe import LaneRecipe
from detprune_lightning.distillation import Teacher
from detprune_lightning.spec import StageSpec
from detprune_lightning.task import measuring, optimizer_and_schedule
from detprune_lightning.training import METRIC_KEY, PlainErrorsLoader, train_loader


class LaneDetector(L.LightningModule):
    """A lane network with the original's loss, and TuSimple's accuracy on the test frames."""

    def __init__(
        self,
        network: LaneNetwork,
        spec: StageSpec,
        train: LaneFrames,
        test: LaneFrames,
        recipe: LaneRecipe,
        teacher: Teacher | None,
    ) -> None:
        super().__init__()
        self.teacher = teacher
        self.network, self.spec, self.recipe = network, spec, recipe
        self.frames = {"train": train, "test": test}
        self.accuracy = MeanMetric()

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N, cells + 1, rows, lanes), of normalised images, (N, 3, H, W)."""
        return logits_of(self.network, images)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """The loss; it includes the auxiliary branch's and the teacher's terms where these exist."""
        images, target, *rest = batch
        output = self.network(images)
        if self.network.use_aux:
            logits = output[0]
            loss = self.recipe.loss(logits, target, output[1], rest[0])
        else:
            logits = output
            loss = self.recipe.loss(logits, target)
        if self.teacher is not None:
            loss = self.teacher.mix(loss, logits, images)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """TuSimple's accuracy; the score is the mean over frames."""
        images, numbers = batch
        frames = [self.frames["test"].frames[number] for number in numbers.tolist()]
        scores = score_frames(found_lanes(self(images), self.network.grid, frames), frames)
        self.accuracy.update(torch.from_numpy(scores.frames.accuracy))
        self.log(METRIC_KEY, self.accuracy, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """The stage's optimizer and schedule."""
        return optimizer_and_schedule(self, self.network, self.spec)

    def train_dataloader(self) -> "DataLoader[Any]":
        """Training frames, shuffled and augmented."""
        data = self.recipe.data
        return train_loader(
            self.frames["train"],
            self.trainer,
            batch_size=data.batch_size,
            workers=data.workers,
            seed=self.recipe.seed,
        )

    def val_dataloader(self) -> "DataLoader[Any]":
        """Test frames."""
        return frame_loader(self.frames["test"], self.recipe)


class _Numbered(Dataset[tuple[Tensor, int]]):
    """Images with their index, by which their labels are found."""

    def __init__(self, frames: LaneFrames) -> None:
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self._frames[number][0], number


def frame_loader(frames: LaneFrames, recipe: LaneRecipe) -> "DataLoader[Any]":
    """Loader of frames in order, (image, index); it has its own generator, so that no other random state changes."""
    return PlainErrorsLoader(
        _Numbered(frames),
        batch_size=recipe.data.batch_size,
        num_workers=recipe.data.workers,
        generator=torch.Generator().manual_seed(0),
    )


def logits_of(network: torch.nn.Module, images: Tensor) -> Tensor:
    """The logits of the main branch, whether or not the network has the auxiliary one."""
    output = network(images)
    logits: Tensor = output[0] if isinstance(output, tuple) else output
    return logits


def found_lanes(logits: Tensor, grid: Grid, frames: Sequence[Frame]) -> list[NDArray[np.float64]]:
    """Lanes that a network finds in frames: (lanes, R) each, x in pixels at the R rows of the frame's labels."""
    rows = {frame.rows.tobytes(): frame.rows for frame in frames}
    decoded = {key: decode(logits, grid, values) for key, values in rows.items()}
    return [decoded[frame.rows.tobytes()][number] for number, frame in enumerate(frames)]


def score_frames(lanes: Sequence[NDArray[np.float64]], frames: Sequence[Frame]) -> Scores:
    """TuSimple's metric of lanes found in frames."""
    return score(
        lanes,
        [
            np.stack(frame.lanes) if frame.lanes else np.empty((0, len(frame.rows)))
            for frame in frames
        ],
        [frame.rows for frame in frames],
    )


def find_all(
    network: LaneNetwork, frames: LaneFrames, recipe: LaneRecipe
) -> list[NDArray[np.float64]]:
    """Lanes that a network finds in all frames, in float32; the network does not change."""
    lanes = []
    with measuring(network, recipe.trainer) as device:
        for images, numbers in frame_loader(frames, recipe):
            batch = [frames.frames[number] for number in numbers.tolist()]
            lanes += found_lanes(logits_of(network, images.to(device)), network.grid, batch)
    return lanes
