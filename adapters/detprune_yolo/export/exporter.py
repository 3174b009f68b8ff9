# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics' exporter, calibrated on training images, and with its output kept out of the terminal."""

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from torchvision import transforms
from ultralytics.data import build_dataloader
from ultralytics.data.utils import check_det_dataset
from ultralytics.engine.exporter import Exporter
from ultralytics.models.yolo import YOLO

from detprune.errors import DetpruneError, InputError
from detprune.loggers import logger
from detprune_yolo.data.building import build_images
from detprune_yolo.data.places import check_class_folders
from detprune_yolo.export.formats import Format
from detprune_yolo.kinds import DETECT, Kind, is_end_to_end, kind_of
from detprune_yolo.process_state import quiet

LOGGER = logger(__name__)

CALIBRATION_IMAGES = 300
"""Training images on which int8 is calibrated; Ultralytics recommends more than 300, where there are so many."""


class CalibratedExporter(Exporter):  # type: ignore[misc]
    """Ultralytics' exporter; int8 is calibrated on training images, not on those that are measured.

    Images and labels are read without Ultralytics' caches, which may hold code.

    Attributes:
        kind: the kind of the network, which says how images are loaded.
    """

    kind: Kind = DETECT

    def get_int8_calibration_dataloader(self, prefix: str = "") -> Any:
        """Training images as validation loads them, uint8."""
        options = deepcopy(self.args)
        options.imgsz, options.rect = max(self.imgsz), False
        kind = self.kind
        folders = kind.labels == "folders"
        data = (
            check_class_folders(Path(self.args.data))
            if folders
            else check_det_dataset(self.args.data, autodownload=False)
        )
        images: Any = build_images(options, data["train"], self.args.batch, data, kind, mode="val")
        if folders:  # resized and cropped as for inference, but not scaled
            steps = images.torch_transforms.transforms[:2]
            images.torch_transforms = transforms.Compose([*steps, transforms.PILToTensor()])
        elif hasattr(images.transforms.transforms[0], "new_shape"):
            images.transforms.transforms[0].new_shape = self.imgsz  # images need not be square
        count = min(CALIBRATION_IMAGES, len(images))
        chosen = [index * len(images) // count for index in range(count)]
        return build_dataloader(
            _Chosen(images, chosen), batch=min(self.args.batch, count), workers=0, drop_last=True
        )


class _Chosen:
    """Some images of a data set, with its way to make batches of them."""

    def __init__(self, images: Any, chosen: list[int]) -> None:
        self._images, self._chosen = images, chosen
        self.collate_fn = getattr(images, "collate_fn", None)

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, number: int) -> Any:
        return self._images[self._chosen[number]]


@contextmanager
def silence() -> Iterator[None]:
    """Keep the words of Ultralytics and of the packages below it out of the terminal; errors are raised anyway."""
    os.environ.setdefault(
        "NNCF_CI", "1"
    )  # else OpenVINO's compressor reports its use to its makers
    before = logging.root.manager.disable
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


@contextmanager
def exported(
    weights: Path,
    wanted: Format,
    *,
    int8: bool,
    size: tuple[int, int],
    data: Path | None,
    batch: int = 1,
) -> Iterator[Path]:
    """Export a checkpoint; yield the file or folder, which is deleted afterwards.

    Args:
        weights: an Ultralytics checkpoint, checked by ``load_model``.
        wanted: the format, checked by ``Format.check``.
        int8: whether weights and activations become integers; needs ``data``.
        size: height and width of the images in pixels.
        data: Ultralytics' description of the data set.
        batch: images at a time.

    Raises:
        InputError: a package is missing.
        DetpruneError: Ultralytics could not export the network.
    """
    with tempfile.TemporaryDirectory(prefix="detprune-") as folder:
        copy = Path(folder) / "model.pt"
        shutil.copyfile(weights, copy)
        network = YOLO(copy)
        options = {
            **network.overrides,
            "mode": "export",
            "format": wanted.name,
            "imgsz": list(size),
            "batch": batch,
            "device": None if wanted.on_cpu else "0",
            "quantize": 8 if int8 else None,
            "data": str(data) if int8 else None,
            "nms": False if is_end_to_end(network.model) else None,
            "verbose": False,
        }
        try:
            with silence():
                exporter = CalibratedExporter(overrides=options)
                exporter.kind = kind_of(network.model)
                written = exporter(model=network.model)
        except ModuleNotFoundError as error:
            raise InputError(
                f"export to {wanted.title} needs the package {error.name}, which is not installed"
            ) from error
        except InputError:
            raise
        except Exception as error:  # exporters of twenty makers raise any type
            LOGGER.debug("export to %s failed", wanted.name, exc_info=True)
            reason = str(error).strip().splitlines()
            raise DetpruneError(
                f"Ultralytics could not export {weights} to {wanted.title}: "
                f"{reason[0] if reason else type(error).__name__}"
            ) from error
        yield Path(written)
