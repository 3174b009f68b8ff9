"""What names the images of a data set, so that a run that is resumed is known to have the same."""

from collections.abc import Iterable
from typing import Any

from torch.utils.data import Dataset

from detprune.run.beginning import digest, file_fact

from .base import TensorImages
from .image_folder import FolderImages


def images_fact(images: Dataset[Any]) -> str:
    """Number and digest of images with their labels; of images that stay in files, their names and sizes."""
    parts: Iterable[object] = ()
    if isinstance(images, TensorImages):
        parts = (images.images.numpy().tobytes(), images.labels)
    elif isinstance(images, FolderImages):
        parts = ((file_fact(path), label) for path, label in images.samples)
    return f"{len(images):,} ({digest(parts)})"  # type: ignore[arg-type]
