# SPDX-License-Identifier: AGPL-3.0-or-later
"""Validation of a detector: Ultralytics' validator predicts, pycocotools scores the predictions.

The scores of the two disagree by a few points on the same predictions; reports and ``stop_at`` use pycocotools.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import nn
from ultralytics.data.utils import check_det_dataset, exif_size, get_split_fraction
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import RANK

from detprune.errors import InputError
from detprune.files import load_yaml
from detprune.run.directory import LOGGER
from detprune_yolo.data.images import build_images
from detprune_yolo.measure.coco import CocoScores, evaluate, from_labels, remap
from detprune_yolo.measure.entries import (
    categories_by_name,
    ground_truth,
    images_by_name,
    integer,
    read_json,
    some,
)
from detprune_yolo.process_state import as_before, quiet


@dataclass(frozen=True)
class Scores:
    """Two measurements of the same predictions.

    Attributes:
        coco: scores of pycocotools.
        ultralytics_map50, ultralytics_map50_95: Ultralytics' own numbers, which are not COCO's.
        predictions: COCO results with the ids of the ground truth, pixels of the original images.
        images: number of images that were validated.
    """

    coco: CocoScores
    ultralytics_map50: float
    ultralytics_map50_95: float
    predictions: list[dict[str, Any]]
    images: int


def validate(
    model: nn.Module,
    data_yaml: Path,
    *,
    imgsz: int,
    batch: int = 16,
    split: str = "val",
    device: str | int | None = None,
    workers: int = 0,
    annotations: Path | None = None,
    max_det: int = 300,
    rect: bool = True,
    exported: Path | None = None,
) -> Scores:
    """Measure a detector in float32; the model and all random states stay as they were.

    Nothing is written, and no cache beside the labels or images is read.

    Args:
        model: an Ultralytics DetectionModel, with the data set's classes in the data set's order.
        data_yaml: Ultralytics' description of the data set.
        imgsz: size in pixels to which the longer side of an image is scaled.
        split: key of the data set, train, val or test.
        device: cpu, an index or name of a GPU; the model's own device by default.
        workers: processes that load images; none on a CPU.
        annotations: COCO instances file with the ground truth of at least these images; the labels
            of the data set by default.
        max_det: predictions per image; raised by Ultralytics if it is 300 and an image has more
            objects.
        rect: pad images to similar shapes of a batch only, not to squares.
        exported: file or folder that Ultralytics exported from the model, which is run in its place, in its own
            batch and image size.

    Raises:
        InputError: model, data and annotations do not fit each other, or cannot be used.
    """
    if RANK != -1:
        raise InputError(
            f"validation runs in one process, but this is rank {RANK} of several, and the ranks would wait "
            "for each other; call it outside of torchrun, before or after distributed training"
        )
    for name, value in (("imgsz", imgsz), ("batch", batch), ("max_det", max_det)):
        if value < 1:
            raise InputError(f"{name} is {value}; it is at least 1")
    names = _class_names(model, data_yaml, split)
    coco = None if annotations is None else read_json(annotations)
    target = _device(model, device)
    truth: dict[str, Any] = {}
    chosen: list[int] = []
    with as_before(target), TemporaryDirectory(prefix="detprune-") as scratch:
        threads = torch.get_num_threads()
        validator = CollectingValidator(
            save_dir=Path(scratch),
            args={
                "data": str(data_yaml),
                "imgsz": imgsz,
                "batch": batch,
                "split": split,
                "device": target,
                "workers": workers,
                "max_det": max_det,
                "rect": rect,
                "plots": False,
                "verbose": False,
                "mode": "val",
            },
        )

        def before_inference(running: DetectionValidator) -> None:
            torch.set_num_threads(threads)  # Ultralytics has just set its own number
            dataset = running.dataloader.dataset
            _warn_about_dropped(dataset)
            built, ids = ground_truth_of(dataset.labels, names, coco, annotations)
            truth.update(built)
            chosen.extend(ids)

        validator.add_callback("on_val_start", before_inference)
        # in float32 before Ultralytics fuses batch norm into convolutions
        run = str(exported) if exported is not None else deepcopy(model).float().eval()
        stats = validator(model=run)
        if validator.dataloader is not None:
            validator.dataloader.close()
    collected: Any = validator.jdict
    predictions = remap(collected, truth, names)
    return Scores(
        coco=evaluate(truth, predictions, image_ids=chosen),
        ultralytics_map50=float(stats["metrics/mAP50(B)"]),
        ultralytics_map50_95=float(stats["metrics/mAP50-95(B)"]),
        predictions=predictions,
        images=len(chosen),
    )


class CollectingValidator(DetectionValidator):  # type: ignore[misc]
    """Ultralytics' validator; it also keeps its predictions, in ``jdict``, as it would write them to a file.

    Its own ``save_json`` also scores them, with a package that it installs.
    """

    def build_dataset(self, img_path: Any, mode: str = "val", batch: int | None = None) -> Any:
        """The images, without Ultralytics' caches."""
        fraction = get_split_fraction(self.args.fraction, self.args.split or "val")
        try:
            return build_images(
                self.args,
                img_path,
                batch,
                self.data,
                mode=mode,
                stride=self.stride,
                fraction=fraction,
            )
        except (FileNotFoundError, RuntimeError) as error:
            raise InputError(f"{self.args.data}: {error}") from error

    def init_metrics(self, model: nn.Module) -> None:
        self.args.save_json = False
        super().init_metrics(model)
        # a path that looks like COCO's switches on save_json, and COCO's own numbering of classes
        self.args.save_json = False
        self.class_map = list(range(1, len(model.names) + 1))  # type: ignore[arg-type]

    def postprocess(self, preds: Any) -> list[dict[str, torch.Tensor]]:
        """NMS of one image at a time: on whole batches it gives up after some seconds, with nothing found."""
        output = preds[0] if isinstance(preds, list | tuple) else preds
        stock = super().postprocess
        return [found for image in output.split(1) for found in stock(image)]

    def update_metrics(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        super().update_metrics(preds, batch)
        for index, found in enumerate(preds):
            image = self._prepare_batch(index, batch)
            # Ultralytics takes a numeric stem for the id; images are found by file_name afterwards
            name = Path(image["im_file"]).name
            start = len(self.jdict)
            self.pred_to_json(self.scale_preds(found, image), {**image, "im_file": "image.jpg"})
            for entry in self.jdict[start:]:
                entry.update(image_id=Path(name).stem, file_name=name)

    def eval_json(self, stats: dict[str, Any]) -> dict[str, Any]:
        return stats


def _class_names(model: nn.Module, data_yaml: Path, split: str) -> dict[int, str]:
    """The data set's classes, after a check that Ultralytics need not look for a file elsewhere."""
    if not data_yaml.is_file() or data_yaml.suffix not in (".yaml", ".yml"):
        raise InputError(f"{data_yaml} is no YAML file that describes a data set")
    load_yaml(data_yaml, strict=False)  # limits the file's size, and names the line of an error
    try:
        with quiet():
            data = check_det_dataset(str(data_yaml), autodownload=False, split=split)
    except (OSError, SyntaxError, TypeError, KeyError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{data_yaml} cannot be used for split {split!r}: {error}") from error
    names: dict[int, str] = data["names"]
    own = getattr(model, "names", None)
    if not isinstance(own, Mapping | list):
        raise InputError(
            f"{type(model).__name__} has no class names; give an Ultralytics DetectionModel"
        )
    listed = [
        str(own[key]) for key in (sorted(own) if isinstance(own, Mapping) else range(len(own)))
    ]
    if len(own) != len(names):
        raise InputError(
            f"the model has {len(own)} classes ({some(listed)}) but {data_yaml} has {len(names)} "
            f"({some(names.values())}); validate on the data that the model was trained for"
        )
    if listed != list(names.values()) and sorted(listed) == sorted(names.values()):
        raise InputError(
            f"the model has the classes of {data_yaml} in another order, {some(listed)} against "
            f"{some(names.values())}; put the names of the data set in the model's order"
        )
    return names


def ground_truth_of(
    labels: list[dict[str, Any]], names: dict[int, str], coco: Any, file: Path | None
) -> tuple[dict[str, Any], list[int]]:
    """COCO annotations, and the ids of the split's images in them.

    Args:
        labels: labels of an Ultralytics data set.
        names: class index → class name.
        coco: content of a COCO file; None builds annotations from the labels.
        file: its path, for messages.

    Raises:
        InputError: an image or a class is missing, occurs twice, or has another size in ``coco``.
    """
    # sorted by name: ids decide between predictions of equal score, and Ultralytics' order depends on rect
    labels = sorted(labels, key=lambda label: str(label["im_file"]))
    images = [_sized(label["im_file"]) for label in labels]
    if coco is None:
        rows = [np.concatenate([label["cls"], label["bboxes"]], axis=1) for label in labels]
        truth = from_labels(images, rows, names)
        categories_by_name(truth, list(names.values()))  # refuses names that occur twice
        return truth, [image["id"] for image in truth["images"]]
    try:
        ground_truth(coco)
        categories_by_name(coco, list(names.values()))
        annotated = images_by_name(coco)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    if missing := [path for path, _, _ in images if Path(path).name not in annotated]:
        raise InputError(
            f"{len(missing)} of {len(images)} images are not in {file}: {some(missing)}; give the "
            "annotations of this split"
        )
    for path, width, height in images:
        stored = annotated[Path(path).name]
        if (stored.get("width", width), stored.get("height", height)) != (width, height):
            raise InputError(
                f"{path} has {width} × {height} pixels, but in {file} {stored.get('width')} × "
                f"{stored.get('height')}; give the images that were annotated"
            )
    return coco, [integer(annotated[Path(path).name], "id", path) for path, _, _ in images]


def _sized(path: str) -> tuple[str, int, int]:
    """File, width and height of an image, upright as Ultralytics loads it; its labels lose the shape with rect."""
    with Image.open(path) as image:
        return (path, *exif_size(image))


def _warn_about_dropped(dataset: Any) -> None:
    """Warn of images with unusable labels, which Ultralytics leaves out with only a line among its output."""
    used = set(dataset.im_files)
    dropped = [path for path in dataset.get_img_files(dataset.img_path) if path not in used]
    if dropped:
        LOGGER.warning(
            "%d images are left out of the validation, because they or their labels cannot be read: %s",
            len(dropped),
            some(dropped),
        )


def _device(model: nn.Module, device: str | int | None) -> torch.device:
    if device is None:
        return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    name = f"cuda:{device}" if str(device).isdigit() else str(device)
    try:
        target = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device is {device!r}; give cpu or the index of one GPU") from error
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device is {device!r}, but PyTorch sees {torch.cuda.device_count()} GPUs; give cpu or "
            "an index below that"
        )
    return target
