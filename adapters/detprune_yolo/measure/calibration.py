# SPDX-License-Identifier: AGPL-3.0-or-later
"""Measurements of a network on a few training images: batch-norm statistics and the task loss."""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import default_collate
from ultralytics.cfg import get_cfg
from ultralytics.data.utils import check_det_dataset

from detprune.files import load_yaml
from detprune.networks.batch_norm import estimate_statistics, even_batches
from detprune_yolo.data.building import build_images
from detprune_yolo.data.images import refuse_left_out
from detprune_yolo.data.places import check_class_folders
from detprune_yolo.kinds import CLASSIFY, DETECT, RTDETR, Kind, kind_of
from detprune_yolo.process_state import as_before, quiet

Batch = dict[str, Any]


class TrainingImages:
    """Training images with labels, loaded as in validation: letterboxed, without augmentation.

    Args:
        data_yaml: Ultralytics' description of the data set, of which split train is taken; for a classifier its folder.
        count: number of images, taken evenly from the set; all if there are fewer.
        imgsz: side of the square input in pixels.
        batch: images at a time.
        kind: the kind of the network.

    Raises:
        InputError: images that Ultralytics would leave out.
    """

    def __init__(
        self, data_yaml: Path, *, count: int, imgsz: int, batch: int, kind: Kind = DETECT
    ) -> None:
        self._kind = kind
        if kind.labels != "folders":
            load_yaml(
                data_yaml, strict=False
            )  # limits the file's size, and names the line of an error
        with quiet():
            if kind.labels == "folders":
                data = check_class_folders(data_yaml)
            else:
                data = check_det_dataset(str(data_yaml), autodownload=False)
            options = get_cfg(overrides={"task": kind.task, "imgsz": imgsz})
            self._images: Any = build_images(options, data["train"], batch, data, kind, mode="val")
        refuse_left_out(self._images.left_out)
        total = len(self._images)
        count = min(count, total)
        self._chosen = [index * total // count for index in range(count)]
        self._batch = batch

    def __len__(self) -> int:
        return len(self._chosen)

    def batches(self, device: torch.device) -> Iterator[Batch]:
        """Batches in the form that the task's loss takes."""
        for numbers in even_batches(len(self._chosen), self._batch):
            items = [self._images[self._chosen[number]] for number in numbers]
            if self._kind.labels == "folders":
                batch = default_collate(items)
                batch = {key: value.to(device) for key, value in batch.items()}
            else:
                batch = self._images.collate_fn(items)
                batch["img"] = batch["img"].to(device).float() / 255
            yield batch


def estimate_batch_norm(
    model: nn.Module,
    images: TrainingImages,
    device: torch.device,
    *,
    frozen: Iterable[nn.Module] = (),
) -> None:
    """Replace running means and variances by those of the images, as the mean over batches.

    Nothing else moves, neither random states nor the model's device and mode, nor the statistics of
    ``frozen`` layers.
    """
    home = next(model.parameters()).device
    with as_before(device):
        try:
            batches = (batch["img"] for batch in images.batches(device))
            estimate_statistics(model.to(device), batches, frozen=frozen)
        finally:
            model.to(home)


@torch.no_grad()
def task_loss(model: nn.Module, images: TrainingImages, device: torch.device) -> float:
    """Ultralytics' loss of the task per image, in evaluation mode; the model stays as it is.

    It is divided by the objects of each batch, so that it depends a little on the batch size.
    """
    clone: Any = deepcopy(model).to(device).eval()
    clone.args = get_cfg()  # weights of the loss terms; a checkpoint's may be a plain mapping
    clone.criterion = clone.init_criterion()
    per_image = kind_of(model) in (
        CLASSIFY,
        RTDETR,
    )  # of the others the loss is a sum over the images
    total = 0.0
    with as_before(device):
        for batch in images.batches(device):
            loss, _ = clone.loss(batch)
            total += float(loss.sum()) * (len(batch["img"]) if per_image else 1)
    return total / len(images)
