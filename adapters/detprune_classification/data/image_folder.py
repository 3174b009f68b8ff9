"""Images in one folder per class, under train/ and test/ (or val/)."""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import v2

from detprune.errors import InputError, listed
from detprune.files.folders import check_listable, made_by_a_system
from detprune.loggers import logger
from detprune.run.shared_images import tell_shared

from .base import (
    IMAGENET,
    Augmentation,
    DataRequest,
    ImageData,
    Sample,
    TensorImages,
    balanced_subset,
    require_root,
)

LOGGER = logger(__name__)

DEFAULT_SIZE = 224
# Up to this size all images are kept decoded in memory: 12 KB each at most, and reading them again
# in every epoch would take longer than the training step of a small network.
IN_MEMORY_SIZE = 64
_SMALLEST = 8
_LOOKED_AT = 16  # images of a folder
_DARK = 2**14  # white of a camera of 14 bits
_NO_PHOTOGRAPHS = {"EPS", "HDF5", "BUFR", "GRIB", "MPEG", "WMF"}  # of Pillow's formats
_UNREADABLE = {".heic", ".heif", ".jxl"}  # images that Pillow does not know
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF
_LAYOUT = "root/train/<class>/<images> and root/test/<class>/<images> (or val for test)"


def build_image_folder(request: DataRequest) -> ImageData:
    """Build a folder of images as (3, S, S) with S = ``image_size``, 224 where it is None.

    Up to 64 pixels, images are decoded once, here, into memory: the largest centred square, scaled
    to S. Training shifts them by up to S/8 pixels (4 at 32) and mirrors them. Above, images are
    read when asked for: training takes a random resized crop, mirrored, and testing scales the
    shorter side to S·256/224 and takes the centre. Normalised with ImageNet's mean and std.

    Raises `InputError` where a folder is missing or empty, where the class folders of training and
    test differ, or where an image cannot be decoded (named by its path; above 64 pixels, this
    comes when that sample is read).
    """
    size = DEFAULT_SIZE if request.image_size is None else request.image_size
    if size < _SMALLEST:
        raise InputError(f"image_size is {size}; it must be {_SMALLEST} or more")
    root = require_root("image_folder", request.root, _LAYOUT)
    train_folder, test_folder = root / "train", root / "test"
    if not test_folder.is_dir() and (root / "val").is_dir():
        test_folder = root / "val"
    train, test = _list(train_folder), _list(test_folder)
    _require_same_classes(train, test, test_folder.name)
    trained_on, measured = ([path for path, _ in part.samples] for part in (train, test))
    _tell_dark(trained_on)
    tell_shared(trained_on, measured, "give other images")
    return ImageData(
        train=_part(train, size, request.train_limit, request.seed, request.augment),
        test=_part(test, size, request.test_limit, request.seed, augment=False),
        classes=tuple(train.classes),
        image_size=size,
        channels=3,
    )


class FolderImages(Dataset[Sample]):
    """Images that are read from their files one by one, as (transformed image, label)."""

    def __init__(
        self, samples: Sequence[tuple[str, int]], transform: Callable[[Image.Image], Tensor]
    ) -> None:
        self.samples = list(samples)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        path, label = self.samples[index]
        return self.transform(load_rgb(path)), label


def load_rgb(path: str) -> Image.Image:
    """Decode an image file as 8-bit RGB; grey of 9 to 16 bits is scaled from its whole range.

    Transparency is dropped, of several frames the first is taken.

    Raises:
        InputError: with its path, where it cannot be decoded or holds numbers of unknown range.
    """
    try:
        with Image.open(path, formats=_formats()) as image:
            # PNG and PGM are of mode I in some versions of Pillow, with values up to 65535
            if image.mode.startswith("I;16") or (
                image.mode == "I" and image.format in ("PNG", "PPM")
            ):
                return _scaled(image).convert("RGB")
            if image.mode in ("I", "F"):
                kind = (
                    "signed or 32-bit integers" if image.mode == "I" else "floating-point numbers"
                )
                raise InputError(
                    f"image {path!r} holds {kind}, whose black and white are not known; save it with 8 "
                    "bits, or 16 bits without a sign, a pixel"
                )
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # PIL raises no single type for damaged files: SyntaxError for PNG, ValueError for others.
        raise InputError(
            f"image {path!r} cannot be decoded ({error}); repair or remove the file"
        ) from error


def _formats() -> list[str]:
    """Formats of Pillow without EPS: it hands such a file, whatever its name, to Ghostscript, which runs it."""
    Image.init()
    return [name for name in Image.OPEN if name != "EPS"]


def _scaled(image: Image.Image) -> Image.Image:
    """Scale an image of one channel of 9 to 16 bits to 8 bits; PIL's own conversion clips at 255."""
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image, dtype=np.float32) * (255 / _white(image))
    grey = np.rint(values).clip(0, 255).astype(np.uint8)
    return Image.fromarray(255 - grey if tags.get(_PHOTOMETRIC) == 0 else grey)  # 0: white is 0


def _white(image: Image.Image) -> int:
    """The number of white in an image of 9 to 16 bits; a TIFF file says its bits."""
    tags = getattr(image, "tag_v2", {})
    bits = int(tags.get(_BITS_PER_SAMPLE, (16,))[0])
    return (1 << bits) - 1


def _list(folder: Path) -> ImageFolder:
    if not folder.is_dir():
        raise InputError(
            f"no folder {str(folder)!r} in data set 'image_folder'; expected {_LAYOUT}"
        )
    try:
        entries = list(folder.iterdir())
        if lost := sorted(str(entry) for entry in entries if not entry.exists()):
            raise InputError(
                f"{lost[0]!r} is a link that leads nowhere, so that a class may be missing; repair or remove it"
            )
        if not any(entry.is_dir() for entry in entries):
            raise InputError(f"no class folder in {str(folder)!r}; expected {_LAYOUT}")
        listing = ImageFolder(folder, allow_empty=True)
    except OSError as error:
        raise InputError(f"{error.filename!r} cannot be read: {error.strerror}") from error
    _require_no_folder_twice(path for path, _ in listing.samples)
    check_listable(folder)
    _require_no_thumbnails([path for path, _ in listing.samples], folder)
    for path, _ in listing.samples:
        _require_image_file(path)
    filled = set(listing.targets)
    empty = [name for name, label in listing.class_to_idx.items() if label not in filled]
    if empty:
        raise InputError(
            f"no image in {len(empty)} of {len(listing.classes)} class folders of {str(folder)!r}: "
            f"{', '.join(empty)}; image files end in {', '.join(IMG_EXTENSIONS)}"
        )
    _tell_left_out(folder)
    return listing


def _tell_left_out(folder: Path) -> None:
    """Warn of images that torchvision's list lacks: of another ending, or beside the class folders."""
    Image.init()
    formats = set(Image.OPEN) - _NO_PHOTOGRAPHS
    endings = {end for end, name in Image.registered_extensions().items() if name in formats}
    left = []
    for place, _, names in os.walk(folder, followlinks=True):  # as torchvision does
        beside = place == str(folder)
        for name in names:
            end = os.path.splitext(name)[1].lower()
            if end in endings | _UNREADABLE and (beside or end not in IMG_EXTENSIONS):
                left.append(os.path.join(place, name))
    if left:
        LOGGER.warning(
            "%d images of %r are left out, such as %s; an image lies in the folder of its class, and ends in %s",
            *(len(left), str(folder), repr(min(left)), ", ".join(IMG_EXTENSIONS)),
        )


def _tell_dark(images: Sequence[str]) -> None:
    """Warn of 16-bit images of a camera with fewer bits, which are nearly black; a few are looked at."""
    brightest = 0
    for path in images[:: max(1, len(images) // _LOOKED_AT)]:
        try:
            with Image.open(path, formats=_formats()) as image:
                if _white(image) < _DARK:
                    continue
                if image.mode.startswith("I"):
                    brightest = max(brightest, int(np.asarray(image).max()))
                elif _has_16_bits(image):  # of colour Pillow gives the upper 8 of them
                    upper = int(np.asarray(image.convert("RGB")).max())
                    brightest = max(brightest, 256 * upper + 255)
                else:
                    brightest = max(brightest, _DARK)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue  # the one that reads it says so
    if 0 < brightest < _DARK:
        LOGGER.warning(
            "the 16-bit images, such as %r, hold no number above %d where white is 65535, as from a camera of fewer "
            "bits, so that they are nearly black; save them with their values multiplied by %d",
            *(images[0], brightest, 2 ** (16 - brightest.bit_length())),
        )


def _has_16_bits(image: Image.Image) -> bool:
    """Whether an image of several channels, not decoded yet, has 16 bits a channel in its file."""
    parts = [tile[3] for tile in image.tile] if isinstance(image, ImageFile.ImageFile) else []
    modes = [args if isinstance(args, str) else args[0] for args in parts if args]
    return any(isinstance(mode, str) and ";16" in mode for mode in modes)


def _require_no_folder_twice(images: Iterable[str]) -> None:
    """Refuse links by which images are found under two paths, and so counted twice, or as of two classes."""
    first: dict[str, str] = {}
    for folder in dict.fromkeys(map(os.path.dirname, images)):
        other = first.setdefault(os.path.realpath(folder), folder)
        if other != folder:
            raise InputError(
                f"{folder!r} leads to a folder whose images are counted already, as {other!r}; remove the link"
            )


def _require_no_thumbnails(images: Sequence[str], folder: Path) -> None:
    """Refuse images that torchvision finds in folders of the system: thumbnails and deleted images."""
    if found := [path for path in images if made_by_a_system(Path(path), folder)]:
        raise InputError(
            "images in hidden folders, or in folders that a storage makes for thumbnails or deleted files "
            f"({len(found)}): {listed(found, 3)}; remove these folders from the data set"
        )


def _require_image_file(path: str) -> None:
    """Refuse a path that would block or fail during training: a pipe, a device, a broken link, an empty file."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise InputError(
            f"image {path!r} cannot be read ({error.strerror}); repair or remove the file"
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"image {path!r} is no regular file; remove it")
    if not found.st_size:
        raise InputError(
            f"image {path!r} cannot be decoded (it is empty); repair or remove the file"
        )
    if not os.access(path, os.R_OK):
        raise InputError(
            f"image {path!r} may not be read; give the permission to, or remove the file"
        )


def _require_same_classes(train: ImageFolder, test: ImageFolder, test_name: str) -> None:
    only_train = sorted(set(train.classes) - set(test.classes))
    only_test = sorted(set(test.classes) - set(train.classes))
    if only_train or only_test:
        parts = [
            f"only in {where}: {', '.join(names)}"
            for where, names in (("train", only_train), (test_name, only_test))
            if names
        ]
        raise InputError(
            f"the class folders of train and {test_name} differ ({'; '.join(parts)}); both need "
            "the same ones, because a class's number is its place in the sorted list"
        )
    if len(train.classes) < 2:
        raise InputError(
            f"train holds one class alone, {train.classes[0]!r}, and a classifier tells two or more apart; add a "
            "folder of images that are not of it"
        )


def _part(
    listing: ImageFolder, size: int, limit: int | None, seed: int, augment: bool
) -> Dataset[Sample]:
    samples = [listing.samples[i] for i in balanced_subset(listing.targets, limit, seed)]
    if size > IN_MEMORY_SIZE:
        return FolderImages(samples, _transform(size, augment))
    augmentation = Augmentation(size // 8, flip=True) if augment else None
    images = torch.empty(len(samples), 3, size, size, dtype=torch.uint8)
    for image, (path, _) in zip(images, samples, strict=True):
        square = ImageOps.fit(load_rgb(path), (size, size), Image.Resampling.BILINEAR)
        image.copy_(torch.from_numpy(np.array(square)).permute(2, 0, 1))
    return TensorImages(images, [label for _, label in samples], IMAGENET, augmentation)


def _transform(size: int, augment: bool) -> Callable[[Image.Image], Tensor]:
    if augment:
        geometry = [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()]
    else:
        geometry = [v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size)]
    to_tensor = [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(IMAGENET.mean, IMAGENET.std),
    ]
    transform: Callable[[Image.Image], Tensor] = v2.Compose([*geometry, *to_tensor])
    return transform
