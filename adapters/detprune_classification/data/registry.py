"""The data sets by name."""

from collections.abc import Callable
from pathlib import Path

from detprune.errors import InputError, unknown

from .base import DataRequest, ImageData
from .cifar10 import build_cifar10
from .digits import build_digits
from .image_folder import build_image_folder

DATA_SETS: dict[str, Callable[[DataRequest], ImageData]] = {
    "digits": build_digits,
    "cifar10": build_cifar10,
    "image_folder": build_image_folder,
}


def build_data(
    name: str,
    root: str | Path | None = None,
    image_size: int | None = None,
    augment: bool = True,
    train_limit: int | None = None,
    test_limit: int | None = None,
    seed: int = 0,
) -> ImageData:
    """Build a data set whose parts yield ((C, S, S) normalised float32, int label).

    ``image_size`` is S in pixels, where the data set lets it be chosen. ``augment`` concerns the
    training part only; its draws come from torch's global generator. A limit keeps that many
    samples, balanced over the classes, and is a pure function of ``seed`` and the limit; the split
    into training and test never depends on the seed.

    Raises `InputError` for an unknown name, a limit below 1, an unfit image size, and missing,
    empty, inconsistent or damaged files.
    """
    if name not in DATA_SETS:
        raise unknown("data set", name, DATA_SETS)
    for argument, limit in (("train_limit", train_limit), ("test_limit", test_limit)):
        if limit is not None and limit < 1:
            raise InputError(f"{argument} is {limit}; it must be 1 or more, or left out for all")
    folder = None if root is None else Path(root)
    return DATA_SETS[name](DataRequest(folder, image_size, augment, train_limit, test_limit, seed))
