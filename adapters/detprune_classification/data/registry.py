"""The data sets by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from detprune.errors import InputError, unknown

from .base import DataRequest, ImageData
from .cifar10 import build_cifar10
from .digits import build_digits
from .image_folder import build_image_folder


@dataclass(frozen=True)
class DataSpec:
    """A data set's name, its one-line description, and what builds it."""

    name: str
    line: str
    build: Callable[[DataRequest], ImageData]


DATA_SETS: dict[str, DataSpec] = {
    spec.name: spec
    for spec in (
        DataSpec(
            "digits",
            "scikit-learn's 1,797 handwritten digits, 8×8 grey, 10 classes; needs no files",
            build_digits,
        ),
        DataSpec(
            "cifar10",
            "CIFAR-10's original files in root/cifar-10-batches-py, 32×32, 10 classes",
            build_cifar10,
        ),
        DataSpec(
            "image_folder",
            "any images as root/train/<class>/* and root/test/<class>/*, scaled to image_size",
            build_image_folder,
        ),
    )
}


def list_data() -> dict[str, str]:
    """Return name -> one-line description of every data set."""
    return {spec.name: spec.line for spec in DATA_SETS.values()}


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
    return DATA_SETS[name].build(
        DataRequest(folder, image_size, augment, train_limit, test_limit, seed)
    )
