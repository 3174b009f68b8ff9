"""CIFAR-10 in its original files: A. Krizhevsky, "Learning multiple layers of features", 2009."""

from pathlib import Path

import torch
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity

from detprune.errors import InputError, listed

from .base import (
    IMAGENET,
    Augmentation,
    DataRequest,
    ImageData,
    TensorImages,
    balanced_subset,
    require_root,
    require_size,
)

SIZE = 32
_LAYOUT = "root/cifar-10-batches-py/ with data_batch_1 to data_batch_5, test_batch and batches.meta"


def build_cifar10(request: DataRequest) -> ImageData:
    """Build CIFAR-10 as (3, 32, 32) images from torchvision's layout; nothing is downloaded.

    Training images are shifted by up to 4 pixels and mirrored, as in He et al., 2016, §4.2.
    Normalised with ImageNet's mean and std, which published CIFAR ResNet checkpoints expect.
    Raises `InputError` where files are missing or damaged, or for an image size other than 32.
    """
    require_size("cifar10", request.image_size, SIZE)
    root = require_root("cifar10", request.root, _LAYOUT)
    _require_files(root)
    augmentation = Augmentation(4, flip=True) if request.augment else None
    train, classes = _part(root, True, request.train_limit, request.seed, augmentation)
    test, _ = _part(root, False, request.test_limit, request.seed, None)
    return ImageData(train, test, classes, image_size=SIZE, channels=3)


def _require_files(root: Path) -> None:
    folder = root / CIFAR10.base_folder
    names = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
    missing = [name for name in [*names, CIFAR10.meta["filename"]] if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"data set 'cifar10' lacks {', '.join(missing)} in {str(folder)!r}; expected {_LAYOUT}: "
            f"unpack {CIFAR10.filename} ({CIFAR10.url}) in root, nothing is downloaded at run time"
        )


def _part(
    root: Path, train: bool, limit: int | None, seed: int, augmentation: Augmentation | None
) -> tuple[TensorImages, tuple[str, ...]]:
    try:
        source = CIFAR10(root, train=train, download=False)
    except RuntimeError as error:
        # torchvision compares each file's MD5 before it opens it.
        folder = root / CIFAR10.base_folder
        files = [*CIFAR10.train_list, *CIFAR10.test_list]
        files.append((CIFAR10.meta["filename"], CIFAR10.meta["md5"]))
        damaged = [name for name, md5 in files if not check_integrity(str(folder / name), md5)]
        raise InputError(
            f"data set 'cifar10' in {str(folder)!r} is damaged: a checksum differs, of {listed(damaged)}; "
            f"unpack {CIFAR10.filename} ({CIFAR10.url}) in root again"
        ) from error
    chosen = balanced_subset(source.targets, limit, seed)
    images = torch.from_numpy(source.data[chosen]).permute(0, 3, 1, 2).contiguous()
    labels = [source.targets[index] for index in chosen]
    return TensorImages(images, labels, IMAGENET, augmentation), tuple(source.classes)
