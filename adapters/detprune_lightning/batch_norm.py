"""Batch-norm statistics of a hard-pruned copy, estimated on the training images of a user's LightningModule."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Subset

import lightning as L
from detprune.errors import InputError
from detprune.loggers import logger
from detprune.networks.batch_norm import estimate_statistics, even_batches, statistics_layers
from detprune.run.seeds import seed_all

LOGGER = logger(__name__)

_MOST = 64  # images at a time
# keys of the images in batches that are mappings
_IMAGE_KEYS = ("image", "images", "img", "pixel_values", "input", "inputs", "x")


class TrainingInputs:
    """The images of batches of a Trainer's training data, chosen evenly from the data set.

    The images are the first entry of a batch, and in a mapping the one whose key names images, if there is one.
    Where that entry is a list of views of the same images, as in ``([view1, view2], label)``, all of them are given.

    The hooks of the LightningModule or DataModule that change a batch before it is trained on are called, because
    many modules normalise in ``on_after_batch_transfer``. The loader, its sampler and the random state stay as they
    are.

    Args:
        trainer: a Trainer whose training loader has been set up.
        count: number of samples; all if there are fewer.

    Raises:
        InputError: the samples of the data cannot be chosen by index.
    """

    def __init__(self, trainer: L.Trainer, count: int) -> None:
        loader = trainer.train_dataloader
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            raise InputError(
                f"the training data are a {type(loader).__name__}, whose samples cannot be chosen by index; after "
                "hard_prune() run some batches of images through the network in training mode, or retrain it; "
                "batch_norm_images=0 says that this is known"
            )
        self._data, self._collate = loader.dataset, loader.collate_fn
        total = len(self._data)  # type: ignore[arg-type]
        count = min(count, total)
        self._chosen = [index * total // count for index in range(count)]
        self._most = min(_MOST, loader.batch_size or _MOST)
        self._trainer, self._module = trainer, trainer.lightning_module

    def __iter__(self) -> Iterator[Tensor]:
        batches = even_batches(len(self._chosen), self._most)
        data = Subset(self._data, self._chosen)
        for batch in DataLoader(data, batch_sampler=batches, collate_fn=self._collate):
            batch = self._trainer.precision_plugin.convert_input(
                batch
            )  # as Lightning's loop begins
            batch = self._hook("on_before_batch_transfer")(batch, 0)
            batch = self._hook("transfer_batch_to_device")(batch, self._module.device, 0)
            yield from _images(self._hook("on_after_batch_transfer")(batch, 0))

    def _hook(self, name: str) -> Callable[..., Any]:
        """A hook of the DataModule where it has one of its own, else that of the LightningModule, as Lightning does."""
        data: L.LightningDataModule | None = getattr(self._trainer, "datamodule", None)
        owner = data if data is not None and is_overridden(name, data) else self._module
        hook: Callable[..., Any] = getattr(owner, name)
        return hook


def _images(batch: Any) -> Sequence[Tensor]:
    """The tensors of images in a batch: one, or all views of the same images."""
    outermost = batch
    while not isinstance(batch, Tensor):
        if batch is not outermost and _views(batch):
            views: Sequence[Tensor] = batch
            return views
        if isinstance(batch, Mapping) and batch:
            named = (batch[key] for key in _IMAGE_KEYS if key in batch)
            batch = next(named, next(iter(batch.values())))
        elif isinstance(batch, Sequence) and batch and not isinstance(batch, str):
            batch = batch[0]
        else:
            raise InputError(
                f"the first entry of a batch is a {type(batch).__name__}, not a tensor"
            )
    return [batch]


def _views(entry: Any) -> bool:
    """Whether an entry of a batch is a sequence of images with one number of samples and of channels."""
    return (
        isinstance(entry, Sequence)
        and len(entry) > 1
        and all(isinstance(one, Tensor) and one.ndim > 1 for one in entry)
        and len({(one.ndim, one.dtype, one.shape[:2]) for one in entry}) == 1
    )


def renew(network: nn.Module, inputs: TrainingInputs | None) -> None:
    """Estimate the statistics of a hard-pruned network anew; warn if that is impossible.

    Args:
        network: a network whose ``forward`` takes the images of a batch.
        inputs: the images; None: the statistics stay as they are.
    """
    if inputs is None or not statistics_layers(network):
        return
    device = next(network.parameters()).device
    with isolate_rng():
        seed_all(0)
        try:
            estimate_statistics(network, (batch.to(device) for batch in inputs))
        # a network that wants other arguments may raise anything; only its owner knows the arguments
        except Exception as error:  # noqa: BLE001
            LOGGER.warning(
                "batch norm keeps the statistics of constrained training, because the network cannot be called "
                "with the first entry of a batch, or that named image (%s: %s); pass network=, the module that takes "
                "it, return the images first from on_after_batch_transfer, or give batch_norm_images=0",
                type(error).__name__,
                error,
            )


def check_single_sample(network: nn.Module, shape: Sequence[int], cause: str) -> None:
    """Refuse a batch of one image where a batch norm would see one value per channel.

    Args:
        network: the network; it does not change.
        shape: (C, H, W) of an image.
        cause: the setting that leads to such a batch, and its value.

    Raises:
        InputError: PyTorch's batch norm has no variance then.
    """
    twin = copy.deepcopy(network).train()
    try:
        with torch.no_grad(), isolate_rng():
            twin(torch.zeros(1, *shape))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"{cause}: batch norm has one value per channel then in this network, and no variance; give another "
            "number, or larger images"
        ) from error
