# SPDX-License-Identifier: AGPL-3.0-or-later
"""Validation: Ultralytics' validator of the task predicts, pycocotools scores boxes, masks and key points.

The scores of the two disagree by a few points on the same predictions; reports and ``stop_at`` use pycocotools. Of
oriented boxes and of classes there are Ultralytics' numbers alone.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from torch import nn
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import RANK

from detprune.errors import InputError
from detprune.files import load_yaml
from detprune.run.directory import LOGGER
from detprune_yolo.data.places import check_class_folders
from detprune_yolo.kinds import DETECT, CocoType, Kind, head_of, kind_of_head
from detprune_yolo.measure.coco import CocoScores, evaluate, remap
from detprune_yolo.measure.collecting import collecting_validator
from detprune_yolo.measure.entries import (
    read_json,
    some,
)
from detprune_yolo.measure.truth import ground_truth_of
from detprune_yolo.process_state import as_before, quiet


@dataclass(frozen=True)
class Scores:
    """Measurements of the same predictions.

    Attributes:
        by_type: scores of pycocotools for boxes, masks and key points, as far as the task has them.
        own: Ultralytics' own numbers under its names, which are not COCO's.
        predictions: COCO results with the ids of the ground truth, pixels of the original images.
        images: number of images that were validated.
    """

    by_type: Mapping[CocoType, CocoScores]
    own: Mapping[str, float]
    predictions: list[dict[str, Any]]
    images: int

    @property
    def coco(self) -> CocoScores:
        """Scores of pycocotools for boxes."""
        return self.by_type["bbox"]

    @property
    def ultralytics_map50(self) -> float:
        """Ultralytics' own mAP50 of boxes."""
        return self.own["metrics/mAP50(B)"]

    @property
    def ultralytics_map50_95(self) -> float:
        """Ultralytics' own mAP50-95 of boxes."""
        return self.own["metrics/mAP50-95(B)"]

    def of(self, kind: Kind) -> dict[str, float]:
        """The metrics of a kind: name → value."""
        return {
            score.metric.name: self.own[score.key]
            if score.coco is None
            else float(getattr(self.by_type[score.coco], score.key))
            for score in kind.scores
        }


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
    """Measure a network in float32; the model and all random states stay as they were.

    Nothing is written, and no cache beside the labels or images is read. Where ``model.end2end`` is true, its
    one-to-one branch is measured, without non-maximum suppression.

    Args:
        model: a network of Ultralytics, or one that answers as its detectors do, with the data set's classes in the
            data set's order.
        data_yaml: Ultralytics' description of the data set; for a classifier its folder.
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
    kind = kind_of_head(head_of(model)) or DETECT
    names = _class_names(model, data_yaml, split, kind)
    coco = None if annotations is None else read_json(annotations)
    target = _device(model, device)
    truth: dict[str, Any] = {}
    chosen: list[int] = []
    with as_before(target), TemporaryDirectory(prefix="detprune-") as scratch:
        threads = torch.get_num_threads()
        validator = collecting_validator(kind)(
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
                "nms": False if getattr(model, "end2end", False) else None,
            },
        )

        def before_inference(running: Any) -> None:
            torch.set_num_threads(threads)  # Ultralytics has just set its own number
            dataset = running.dataloader.dataset
            if not kind.coco_types:
                return
            _warn_about_dropped(dataset)
            built, ids = ground_truth_of(dataset.labels, names, coco, annotations, kind)
            truth.update(built)
            chosen.extend(ids)

        validator.add_callback("on_val_start", before_inference)
        # in float32 before Ultralytics fuses batch norm into convolutions
        run = str(exported) if exported is not None else deepcopy(model).float().eval()
        stats = validator(model=run)
        if validator.dataloader is not None:
            validator.dataloader.close()
        count = len(validator.dataloader.dataset)
    by_type, predictions = compared(validator, truth, names, chosen, kind)
    return Scores(by_type, {k: float(v) for k, v in stats.items()}, predictions, count)


def compared(
    validator: Any,
    truth: dict[str, Any],
    names: dict[int, str],
    chosen: list[int],
    kind: Kind,
) -> tuple[dict[CocoType, CocoScores], list[dict[str, Any]]]:
    """Scores of pycocotools for what a validator collected, and the predictions with the ids of the ground truth.

    Args:
        validator: a collecting validator after its run.
        truth, chosen: COCO annotations, and the ids of the images that were validated.
        names: class index → class name.
    """
    if not kind.coco_types:
        return {}, []
    predictions = remap(validator.jdict, truth, names)
    sigmas = getattr(validator, "sigma", None)
    scores = {
        own: evaluate(truth, predictions, image_ids=chosen, kind=own, sigmas=sigmas)
        for own in kind.coco_types
    }
    return scores, predictions


def _class_names(model: nn.Module, data_yaml: Path, split: str, kind: Kind) -> dict[int, str]:
    """The data set's classes, after a check that Ultralytics need not look for a file elsewhere."""
    names = _names_of(data_yaml, split, kind)
    own = getattr(model, "names", None)
    if not isinstance(own, Mapping | list):
        raise InputError(
            f"{type(model).__name__} has no class names; give a network of Ultralytics"
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


def _names_of(data_yaml: Path, split: str, kind: Kind) -> dict[int, str]:
    if kind.labels == "folders":
        with quiet():
            listed: dict[int, str] = check_class_folders(data_yaml)["names"]
        return listed
    if not data_yaml.is_file() or data_yaml.suffix not in (".yaml", ".yml"):
        raise InputError(f"{data_yaml} is no YAML file that describes a data set")
    load_yaml(data_yaml, strict=False)  # limits the file's size, and names the line of an error
    try:
        with quiet():
            data = check_det_dataset(str(data_yaml), autodownload=False, split=split)
    except (OSError, SyntaxError, TypeError, KeyError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{data_yaml} cannot be used for split {split!r}: {error}") from error
    names: dict[int, str] = data["names"]
    return names


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
