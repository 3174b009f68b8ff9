# SPDX-License-Identifier: AGPL-3.0-or-later
"""The table of Ultralytics' tasks that can be pruned: classes, labels and metrics of each.

Everything that depends on the task of a network asks this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from ultralytics.models.rtdetr import RTDETRPredictor, RTDETRValidator
from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.models.yolo import classify, detect, obb, pose, segment
from ultralytics.nn import tasks

from detprune.errors import InputError
from detprune.run.metrics import Metric

Labels = Literal["boxes", "polygons", "keypoints", "corners", "folders"]
CocoType = Literal["bbox", "segm", "keypoints"]


@dataclass(frozen=True)
class Score:
    """A metric, and where its value comes from.

    Attributes:
        metric: name, unit and direction.
        coco: kind of annotation that pycocotools compares; None for a number of Ultralytics' validator.
        key: attribute of ``CocoScores``, or key of the validator's results.
    """

    metric: Metric
    coco: CocoType | None
    key: str


@dataclass(frozen=True)
class Kind:
    """One kind of network.

    Attributes:
        name: the kind in messages.
        task: Ultralytics' name of the task.
        network: class of the network.
        heads: class names of its last module.
        trainer, validator, predictor: Ultralytics' own.
        labels: what a label file holds: boxes; polygons; boxes with key points; polygons of rotated boxes. With
            ``folders`` there are none: the folder of an image is its class.
        scores: the metrics; the first is the headline metric.
        imgsz: side of the images in pixels where the options name none.
    """

    name: str
    task: str
    network: Any
    heads: tuple[str, ...]
    trainer: Any
    validator: Any
    predictor: Any
    labels: Labels
    scores: tuple[Score, ...]
    imgsz: int = 640

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics, headline first."""
        return tuple(score.metric for score in self.scores)

    @property
    def watched(self) -> Score:
        """The metric that Ultralytics' trainer measures after every epoch."""
        return next(score for score in self.scores if score.coco is None)

    @property
    def coco_types(self) -> tuple[CocoType, ...]:
        """What pycocotools compares."""
        return tuple(dict.fromkeys(s.coco for s in self.scores if s.coco is not None))

    def description(self) -> str:
        """The kind as in a sentence: ``segmentation (task 'segment')``."""
        return f"{self.name} (task {self.task!r})"


def _coco(prefix: str, kind: CocoType) -> tuple[Score, ...]:
    return (
        Score(Metric(f"{prefix}mAP@0.5"), kind, "map50"),
        Score(Metric(f"{prefix}mAP@[.5:.95]"), kind, "map50_95"),
    )


def _own(prefix: str, letter: str) -> tuple[Score, ...]:
    return (
        Score(Metric(f"{prefix}mAP50 (Ultralytics' own)"), None, f"metrics/mAP50({letter})"),
        Score(Metric(f"{prefix}mAP50-95 (Ultralytics' own)"), None, f"metrics/mAP50-95({letter})"),
    )


_BOXES = (*_coco("", "bbox"), *_own("", "B"))

DETECT = Kind(
    name="detection",
    task="detect",
    network=tasks.DetectionModel,
    heads=("Detect", "v10Detect"),
    trainer=detect.DetectionTrainer,
    validator=detect.DetectionValidator,
    predictor=detect.DetectionPredictor,
    labels="boxes",
    scores=_BOXES,
)
SEGMENT = Kind(
    name="segmentation",
    task="segment",
    network=tasks.SegmentationModel,
    heads=("Segment", "Segment26"),
    trainer=segment.SegmentationTrainer,
    validator=segment.SegmentationValidator,
    predictor=segment.SegmentationPredictor,
    labels="polygons",
    scores=(*_coco("mask ", "segm"), *_coco("box ", "bbox"), *_own("mask ", "M")),
)
POSE = Kind(
    name="pose estimation",
    task="pose",
    network=tasks.PoseModel,
    heads=("Pose", "Pose26"),
    trainer=pose.PoseTrainer,
    validator=pose.PoseValidator,
    predictor=pose.PosePredictor,
    labels="keypoints",
    scores=(*_coco("pose ", "keypoints"), *_coco("box ", "bbox"), *_own("pose ", "P")),
)
OBB = Kind(
    name="oriented boxes",
    task="obb",
    network=tasks.OBBModel,
    heads=("OBB", "OBB26"),
    trainer=obb.OBBTrainer,
    validator=obb.OBBValidator,
    predictor=obb.OBBPredictor,
    labels="corners",
    scores=(
        Score(Metric("rotated mAP50"), None, "metrics/mAP50(B)"),
        Score(Metric("rotated mAP50-95"), None, "metrics/mAP50-95(B)"),
    ),
)
CLASSIFY = Kind(
    name="classification",
    task="classify",
    network=tasks.ClassificationModel,
    heads=("Classify",),
    trainer=classify.ClassificationTrainer,
    validator=classify.ClassificationValidator,
    predictor=classify.ClassificationPredictor,
    labels="folders",
    scores=(
        Score(Metric("top-1 accuracy"), None, "metrics/accuracy_top1"),
        Score(Metric("top-5 accuracy"), None, "metrics/accuracy_top5"),
    ),
    imgsz=224,
)
RTDETR = Kind(
    name="detection by RT-DETR",
    task="detect",
    network=tasks.RTDETRDetectionModel,
    heads=("RTDETRDecoder",),
    trainer=RTDETRTrainer,
    validator=RTDETRValidator,
    predictor=RTDETRPredictor,
    labels="boxes",
    scores=_BOXES,
)

KINDS = (DETECT, SEGMENT, POSE, OBB, CLASSIFY, RTDETR)
TASKS: Mapping[str, Kind] = {kind.task: kind for kind in reversed(KINDS)}
"""Ultralytics' tasks; detection stands for the detectors that are not RT-DETR."""


def kind_of_head(head: str) -> Kind | None:
    """The kind of networks that end in a module of this class; None for heads that are not supported."""
    return next((kind for kind in KINDS if head in kind.heads), None)


def kind_of(network: nn.Module, what: object = "the model") -> Kind:
    """The kind of a network of Ultralytics.

    Args:
        what: names the network, or its file, in the error.

    Raises:
        InputError: it is none of the table.
    """
    head = head_of(network)
    kind = kind_of_head(head)
    if kind is None or not isinstance(network, kind.network):
        raise unsupported(f"{what} holds a {type(network).__name__}, which ends in {head}")
    return kind


def head_of(network: nn.Module) -> str:
    """Class name of a network's last module."""
    layers = getattr(network, "model", None)
    return type(layers[-1]).__name__ if isinstance(layers, nn.Sequential) else "something else"


def unsupported(problem: str) -> InputError:
    """The error for a network of another kind, which says what can be pruned."""
    return InputError(
        f"{problem}; what can be pruned here are networks of Ultralytics for detection, segmentation, poses, "
        "oriented boxes and classification, and RT-DETR, but no YOLO-World and no YOLOE, whose classes are texts, "
        "and no networks for semantic segmentation or depth; take a network such as yolo11n.yaml or yolov8n-seg.pt"
    )


def is_end_to_end(network: nn.Module) -> bool:
    """Whether a network has a one-to-one branch, whose boxes need no non-maximum suppression (yolov10, yolo26)."""
    head: Any = network.get_submodule("model")[-1]  # type: ignore[index]
    return getattr(head, "one2one_cv2", None) is not None


def use_one_to_one(network: nn.Module) -> None:
    """Let a network with a one-to-one branch be run, measured and counted by that branch, as it will be used.

    Ultralytics' own ``val``, ``predict`` and ``export`` follow their option ``nms`` instead.
    """
    if is_end_to_end(network):
        own: Any = network
        own.end2end = True
