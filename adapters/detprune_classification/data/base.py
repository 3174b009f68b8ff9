"""Parts that all data sets share: the request, the result, images in memory, balanced subsets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from detprune.errors import InputError

Sample = tuple[Tensor, int]


@dataclass(frozen=True)
class ImageData:
    """A classification data set.

    ``train`` and ``test`` yield (image, label): a normalised float32 tensor of shape
    (channels, image_size, image_size) and an int that indexes ``classes``.
    """

    train: Dataset[Sample]
    test: Dataset[Sample]
    classes: tuple[str, ...]
    image_size: int
    channels: int


@dataclass(frozen=True)
class DataRequest:
    """The arguments of `build_data` as a data set's builder receives them."""

    root: Path | None
    image_size: int | None
    augment: bool
    train_limit: int | None
    test_limit: int | None
    seed: int


@dataclass(frozen=True)
class Normalisation:
    """``(pixel / full_scale - mean) / std`` per channel; pixels run from 0 to ``full_scale``."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    full_scale: float = 255.0


# For CIFAR-10 too, although its own statistics differ: the ResNet checkpoints in circulation that
# this package can load were trained with ImageNet's numbers, and lose accuracy with any others.
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Augmentation:
    """Shift by up to ``pad`` pixels, filled with black, and mirror half of the images if ``flip``."""

    pad: int
    flip: bool


class TensorImages(Dataset[Sample]):
    """Decoded images in memory, augmented and normalised when they are read.

    ``images`` is uint8 of shape (N, C, S, S). An augmented sample draws from torch's global
    generator only, so that seeding it repeats the samples exactly.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Sequence[int],
        normalisation: Normalisation,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.images = images
        self.labels = list(labels)
        self.augmentation = augmentation
        # (x / scale - mean) / std as one subtraction and one product per sample.
        std = torch.tensor(normalisation.std).view(-1, 1, 1)
        mean = torch.tensor(normalisation.mean).view(-1, 1, 1)
        self._offset = mean * normalisation.full_scale
        self._factor = 1 / (std * normalisation.full_scale)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Several samples at once, which is faster than one by one; ``DataLoader`` calls it with a batch's indices."""
        images = self.images[torch.as_tensor(indices)]
        if self.augmentation is not None:
            images = _augmented(images, self.augmentation)
        values = images.float().sub_(self._offset).mul_(self._factor)
        return [(value, self.labels[i]) for value, i in zip(values, indices, strict=True)]


def _augmented(images: Tensor, augmentation: Augmentation) -> Tensor:
    """Shift and mirror each of the images, (N, C, S, S), by its own random numbers."""
    pad, (count, _, size, _) = augmentation.pad, images.shape
    top, left = torch.randint(2 * pad + 1, (2, count))
    # every window of the padded images, without a copy: (N, C, 2·pad + 1, 2·pad + 1, S, S)
    padded = functional.pad(images, (pad, pad, pad, pad))
    windows = padded.unfold(2, size, 1).unfold(3, size, 1)
    images = windows[torch.arange(count), :, top, left]
    if augmentation.flip:
        mirrored = torch.rand(count) < 0.5
        images[mirrored] = images[mirrored].flip(-1)
    return images


def balanced_subset(labels: Sequence[int], limit: int | None, seed: int) -> list[int]:
    """Return the sorted indices of ``limit`` samples, as many of each class as of any other.

    Each class is shuffled by a generator of its own seeded with ``seed``; then the classes give one
    sample each in turn, lowest label first, until the limit is reached. Counts thus differ by one
    at most, except where a class runs out, and a smaller limit's subset lies within a larger one's.
    With no limit, or one that is not below ``len(labels)``, every index is returned.
    """
    if limit is None or limit >= len(labels):
        return list(range(len(labels)))
    generator = torch.Generator().manual_seed(seed)
    of_class: dict[int, list[int]] = {label: [] for label in sorted(set(labels))}
    for index, label in enumerate(labels):
        of_class[label].append(index)
    turns = []
    for label, indices in of_class.items():
        order = torch.randperm(len(indices), generator=generator).tolist()
        turns += [(turn, label, indices[place]) for turn, place in enumerate(order)]
    return sorted(index for _, _, index in sorted(turns)[:limit])


def require_root(name: str, root: Path | None, layout: str) -> Path:
    """Return ``root`` with ``~`` expanded; raise `InputError` where it is None or no folder."""
    if root is None:
        raise InputError(f"data set {name!r} needs a root folder; expected {layout}")
    root = root.expanduser()
    if not root.is_dir():
        raise InputError(
            f"root {str(root)!r} of data set {name!r} is not a folder; expected {layout}"
        )
    return root


def require_size(name: str, image_size: int | None, own: int) -> None:
    """Raise `InputError` where ``image_size`` differs from the only size that the data set has."""
    if image_size not in (None, own):
        raise InputError(
            f"image_size is {image_size}, but the images of data set {name!r} are {own}×{own}; "
            f"leave image_size out or set it to {own}"
        )
