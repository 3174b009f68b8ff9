# SPDX-License-Identifier: AGPL-3.0-or-later
"""The data set of a task as Ultralytics' own trainer or validator builds it, without its caches."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ultralytics.data.dataset import ClassificationDataset
from ultralytics.data.utils import get_split_fraction
from ultralytics.utils import colorstr

from detprune_yolo.data.images import (
    DetectionImages,
    StretchedImages,
    labels_folder,
    no_repairs,
    refuse_left_out,
    refuse_odd_files,
    refuse_system_files,
)
from detprune_yolo.kinds import DETECT, RTDETR, Kind


class ClassImages(ClassificationDataset):  # type: ignore[misc]
    """``ClassificationDataset`` with caches of its own, which changes no file of the user.

    Raises:
        InputError: an image that is no regular file, or a thumbnail in a folder of the system.
    """

    left_out: Sequence[str] = ()
    """Images that Ultralytics leaves out."""

    def verify_images(self) -> list[tuple[str, int]]:
        """Ultralytics' list of images that can be read, and of their folders."""
        held = str(vars(self)["root"])
        refuse_system_files((file for file, _ in self.samples), Path(held))
        refuse_odd_files(file for file, _ in self.samples)
        own = labels_folder() / hashlib.sha256(str(Path(held).resolve()).encode()).hexdigest()[:16]
        own.mkdir(exist_ok=True)
        self.root = str(own / Path(held).name)  # the cache lies beside it
        try:
            with no_repairs():
                found: list[tuple[str, int]] = super().verify_images()
        finally:
            self.root = held
        used = {file for file, *_ in found}
        self.left_out = [file for file, *_ in self.samples if file not in used]
        return found


def build_images(
    options: Any,
    img_path: str | list[str],
    batch: int | None,
    data: dict[str, Any],
    kind: Kind = DETECT,
    *,
    mode: str = "train",
    rect: bool = False,
    stride: int = 32,
    fraction: float | None = None,
) -> DetectionImages | ClassImages:
    """Build the data set that Ultralytics' own trainer or validator builds, without its caches.

    Args:
        options: Ultralytics' settings.
        img_path: folder, list of images, or several of them.
        batch: images at a time.
        data: the data set as ``check_det_dataset`` or ``check_cls_dataset`` reads it.
        kind: the kind of the network.
        mode: with augmentation for ``train``, without for ``val``.
        rect: pad to the shapes of a batch only.
        stride: stride of the network, in pixels.
        fraction: share of the images; that of the settings by default.

    Raises:
        InputError: an image or label that training would leave out; and what the data sets raise.
    """
    split = "train" if mode == "train" else options.split
    if kind.labels == "folders":
        augment = mode == "train"
        classes = ClassImages(
            img_path, options, augment, prefix=split or "val", names=data["names"]
        )
        if augment:
            refuse_left_out(classes.left_out)
        return classes
    if data.get("complete"):
        fraction = 1.0
    elif fraction is None:
        fraction = get_split_fraction(options.fraction, split)
    stretched = kind == RTDETR
    images: DetectionImages = (StretchedImages if stretched else DetectionImages)(
        img_path=img_path,
        imgsz=options.imgsz,
        batch_size=batch,
        augment=mode == "train",
        hyp=options,
        rect=(options.rect or rect) and not stretched,
        cache=options.cache or None,
        single_cls=options.single_cls or False,
        stride=stride,
        pad=0.0 if mode == "train" else 0.5,
        prefix=colorstr(f"{mode}: "),
        task=options.task,
        classes=options.classes,
        data=data,
        fraction=fraction,
    )
    if mode == "train":
        refuse_left_out(images.left_out)
    return images
