"""What names the images of a data set, so that a run that is resumed is known to have the same."""

from collections.abc import Iterable
from typing import Any

from torch.utils.data import Dataset

from detprune.run.beginning import digest, file_fact, pixels_fact

from .base import TensorImages
from .image_folder import FolderImages


def images_facts(what: str, images: Dataset[Any]) -> dict[str, str]:
    """Number and digest of images with their labels; of images that stay in files, their names, sizes and pixels."""
    facts = {}
    parts: Iterable[object] = ()
    if isinstance(images, TensorImages):
        parts = (images.images.numpy().tobytes(), images.labels)
    elif isinstance(images, FolderImages):
        parts = ((file_fact(path), label) for path, label in images.samples)
        facts[f"{what}' pixels"] = pixels_fact(path for path, _ in images.samples)
    facts[what] = f"{len(images):,} ({digest(parts)})"  # type: ignore[arg-type]
    return facts
