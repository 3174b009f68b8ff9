"""Batch-norm statistics of a detector, estimated anew."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset

from detprune_yolo.process_state import as_before, quiet


def estimate_batch_norm(
    model: nn.Module, data_yaml: Path, *, images: int, imgsz: int, batch: int, device: torch.device
) -> None:
    """Replace running means and variances by those of training images; nothing else moves.

    Args:
        model: an Ultralytics DetectionModel in float32; its device and mode stay what they are.
        data_yaml: Ultralytics' description of the data set, whose images of split train are taken,
            spread over it, as validation would load them: letterboxed, without augmentation.
        images: how many; all if there are fewer.
        imgsz: side of the square input in pixels.
        batch: images whose statistics are taken together; the result is the mean over batches.
        device: on which the network runs.
    """
    home = next(model.parameters()).device
    with as_before(device), quiet():
        data = check_det_dataset(str(data_yaml), autodownload=False)
        options = get_cfg(overrides={"task": "detect", "imgsz": imgsz})
        dataset = build_yolo_dataset(options, data["train"], batch, data, mode="val")
        count = min(images, len(dataset))
        chosen = [index * len(dataset) // count for index in range(count)]
        update_bn(_batches(dataset, chosen, batch), model.to(device), device)
    model.to(home)


def _batches(dataset: Any, chosen: list[int], size: int) -> Iterator[Tensor]:
    for start in range(0, len(chosen), size):
        images = [dataset[index]["img"] for index in chosen[start : start + size]]
        yield torch.stack(images).float() / 255
