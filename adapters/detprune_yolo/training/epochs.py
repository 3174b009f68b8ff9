# SPDX-License-Identifier: AGPL-3.0-or-later
"""Repeatable epochs: all randomness of an epoch is a function of (seed, stage, epoch)."""

import random
from typing import Any

import numpy as np
import torch
from ultralytics.utils import RANK

from detprune.errors import InputError
from detprune.run.seeds import derive_seed, seed_all


def seed_epoch(trainer: Any, stage: str) -> None:
    """Seed every generator that an epoch draws from, and restart the data.

    A pass that is repeated after a NaN gets another order, or it might meet the same NaN again.
    """
    place = (stage, trainer.epoch, trainer.nan_recovery_attempts)
    seed_all(derive_seed(trainer.args.seed, *place, RANK))
    loader = trainer.train_loader
    loader.generator.manual_seed(derive_seed(trainer.args.seed, "order", *place, RANK))
    loader.reset()


def check_every(every: float | None, batches: int, accumulated: int) -> None:
    """Refuse outer iterations without an optimizer step.

    Args:
        every: epochs per outer iteration.
        batches: batches in an epoch.
        accumulated: batches for one optimizer step.
    """
    if every is not None and every * batches < accumulated:
        raise InputError(
            f"every is {every:g} epochs, in which there is no optimizer step; an epoch has {batches} "
            f"batches and a step every {accumulated}: give a larger every, or a smaller nbs"
        )


def mosaic_buffer(loader: Any) -> list[int]:
    """Indices of the recently read images, which mosaics are made from; empty if other processes read them."""
    return [] if loader.num_workers else list(getattr(loader.dataset, "buffer", ()))


def fill_mosaic_buffer(loader: Any, buffer: list[int], seed: int) -> None:
    """Read the images of a saved buffer again; for workers that restart with every epoch, the first images.

    Workers are forked anew for every epoch; with empty buffers their first mosaics would show one
    image four times.
    """
    dataset = loader.dataset
    if getattr(dataset, "cache", None) == "ram" or not getattr(dataset, "max_buffer_length", 0):
        return
    if loader.num_workers:
        count = max(1, dataset.max_buffer_length // loader.num_workers)
        buffer = random.Random(seed).sample(range(len(dataset.im_files)), k=count)
    if buffer:
        dataset.buffer.clear()
        dataset.ims = [None] * len(dataset.im_files)
        for index in buffer:
            dataset.load_image(index)


def plain(value: Any) -> Any:
    """Nested state in types that safe loading allows: tensors (not copied), numbers, text, containers."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value
