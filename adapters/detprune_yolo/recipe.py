# SPDX-License-Identifier: AGPL-3.0-or-later
"""The recipe of a run with a network of Ultralytics."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from detprune.errors import InputError
from detprune.run.recipe import Recipe, Section, Settings
from detprune_yolo.data.drawing import DrawnSet
from detprune_yolo.detectors import check_start
from detprune_yolo.kinds import DETECT, Kind
from detprune_yolo.options import check_options, check_use


class ModelSpec(Section):
    """The network; its head says for which task it is.

    Attributes:
        cfg: an architecture of Ultralytics (``yolov3-tiny.yaml``, ``yolo11n-seg.yaml``), or a file of that form.
        width: width multiple that replaces the architecture's own.
        weights: an Ultralytics checkpoint, in place of ``cfg``.
        unsafe_load: whether the checkpoint may run code while it is loaded (pickle).
    """

    cfg: str | None = None
    width: float | None = Field(default=None, gt=0, le=16)  # Ultralytics' own multiples end at 1.5
    weights: Path | None = None
    unsafe_load: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.cfg is None) == (self.weights is None):
            raise InputError(
                "model needs either cfg, an architecture to train, or weights, a checkpoint to prune"
            )
        if self.width is not None and self.cfg is None:
            raise InputError(
                f"model.width is {self.width:g}, but the widths of a checkpoint are fixed; leave model.width out, "
                "or give model.cfg, an architecture to train"
            )
        _ = self.kind
        return self

    @property
    def kind(self) -> Kind:
        """The kind of the network; of a file that is not there, detection."""
        return check_start(self.cfg or self.weights) or DETECT


class DataSpec(Section):
    """The images.

    Attributes:
        yaml: a data set file in Ultralytics' format; for classification a folder with ``train/<class>/<image>`` and
            ``val/<class>/<image>``.
        drawn: settings of a drawn data set, used in place of ``yaml``; it goes into the user's cache folder. Its labels
            are those of the network's task.
        annotations: COCO annotations of the images of ``split``; left out, they are made from the label files.
        split: the images on which mAP is measured. Ultralytics picks its best epoch on them too, except with
            ``test``: then it picks on ``val``, and training never sees the test images.
    """

    yaml: Path | None = None
    drawn: DrawnSet | None = None
    annotations: Path | None = None
    split: Literal["val", "test", "train"] = "val"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.yaml is None) == (self.drawn is None):
            raise InputError("data needs either yaml, a data set of yours, or drawn: {}")
        if self.split == "test" and self.drawn is not None and not self.drawn.test:
            raise InputError(
                "data.split is test, and data.drawn has no test images; give drawn.test"
            )
        return self

    @property
    def training_split(self) -> Literal["val", "train"]:
        """The images on which training validates."""
        return "train" if self.split == "train" else "val"


class StageSpec(Section):
    """A stretch of training.

    Attributes:
        epochs: its length.
        train: Ultralytics' options for it alone.
    """

    epochs: int = Field(ge=0, le=1_000_000)
    train: dict[str, Any] = Field(default_factory=dict)

    @field_validator("train")
    @classmethod
    def _known(cls, options: dict[str, Any]) -> dict[str, Any]:
        return check_options(options)


class ConstrainedSpec(StageSpec):
    """Constrained training.

    Attributes:
        every: epochs per outer iteration; 0.5 updates Z and the multipliers twice an epoch. Left out, an outer
            iteration is one epoch; in runs of fewer than 20 epochs there are 20 outer iterations.
        check_every: epochs between measurements of the headline metric after hard pruning, on a copy; 0: none.
        stop_at: value of the headline metric after hard pruning at which constrained training ends early: mAP@0.5 of
            boxes, masks or poses, rotated mAP50, or top-1 accuracy.
        prune: the weights that are hard-pruned: Ultralytics' moving average (``ema``) or the live ones (``live``).
    """

    every: float | None = Field(default=None, gt=0)
    check_every: int = Field(default=0, ge=0)
    stop_at: float | None = Field(default=None, gt=0, le=1)
    prune: Literal["ema", "live"] = "ema"

    @model_validator(mode="after")
    def _checks(self) -> Self:
        if self.stop_at is not None and not self.check_every:
            raise InputError(
                f"stop_at needs check_every: it is {self.stop_at:g}, but check_every is 0, so that nothing is "
                "measured; give check_every, the epochs between measurements"
            )
        return self


class Stages(Section):
    """Lengths and options of the stages; without ``dense`` the model must be a checkpoint.

    Attributes:
        dense: training of the dense detector.
        constrained: training under the method, up to hard pruning.
        retrain: training with the masks, or of the smaller detector.
    """

    dense: StageSpec | None = None
    constrained: ConstrainedSpec
    retrain: StageSpec


class DistillationSpec(Section):
    """Distillation from a dense detector, the teacher.

    Attributes:
        weight: share of the teacher's term in the loss; the labels' term has the rest.
        teacher: checkpoint of the teacher: the same classes, levels and kind of head, any size. By default it is
            the dense detector that is pruned.
    """

    weight: float = Field(default=0.5, gt=0, le=1)
    teacher: Path | None = None


class DetectionRecipe(Recipe):
    """Prune a network of Ultralytics: detection, segmentation, poses, oriented boxes, classification.

    Attributes:
        model: the network.
        data: the images.
        train: Ultralytics' options for all stages.
        stages: length of each stage, and Ultralytics' options for it alone.
        distillation: how a dense detector teaches constrained training and masked retraining; null: none does.
    """

    task: Literal["yolo"]
    model: ModelSpec
    data: DataSpec
    train: dict[str, Any] = Field(default_factory=dict)
    stages: Stages
    distillation: DistillationSpec | None = None

    @field_validator("train")
    @classmethod
    def _known(cls, options: dict[str, Any]) -> dict[str, Any]:
        return check_options(options)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        drawn = self.data.drawn
        allowed = (None, self.kind.task)
        if drawn is not None and drawn.task not in allowed and self.kind.labels != "boxes":
            raise InputError(
                f"data.drawn.task is {drawn.task!r}, but the model is a network for {self.kind.description()}; leave "
                "the task out, so that it follows from the model"
            )
        if drawn is not None and drawn.task == "classify" != self.kind.task:
            raise InputError(
                "data.drawn.task is 'classify', whose images have no boxes, but the model is a network for "
                f"{self.kind.description()}; leave the task out, so that it follows from the model"
            )
        if self.data.annotations is not None and not self.kind.coco_types:
            raise InputError(
                f"data.annotations is {self.data.annotations}, but a network for {self.kind.name} is measured by "
                "Ultralytics' validator alone; leave annotations out"
            )
        for stage in (self, *(s for s in vars(self.stages).values() if s is not None)):
            check_use(stage.train, self.kind)
        if self.stages.dense is None and self.model.weights is None:
            raise InputError(
                "there is no dense baseline: give stages.dense to train one, or model.weights to load one"
            )
        if str(self.stages.constrained.train.get("optimizer", "SGD")).lower() == "auto":
            raise InputError(
                "stages.constrained.train.optimizer is auto, which ignores lr0 and may pick an optimizer "
                "that hardly feels the penalty; write SGD and lr0"
            )
        optimizer = str(self.options("constrained")["optimizer"])
        if self.method.needs_sgd and optimizer.upper() != "SGD":
            raise InputError(
                f"method.rho is chosen by pull, which through the gradient is worked out for SGD, but the optimizer of "
                f"constrained training is {optimizer!r}; leave penalty out, use SGD, or give rho as a number"
            )
        return self

    @property
    def kind(self) -> Kind:
        """The kind of the network, which follows from the model."""
        return self.model.kind

    @property
    def has_weights(self) -> bool:
        """Whether the model is a checkpoint."""
        return self.model.weights is not None

    @property
    def pruning_epochs(self) -> int:
        """Epochs of constrained training and masked retraining together."""
        return self.stages.constrained.epochs + self.stages.retrain.epochs

    def from_dense(self, run: Path) -> Settings:
        """The best epoch of the dense stage as Ultralytics wrote it; without that stage, the recipe's checkpoint."""
        return {"model": {"weights": str(self._dense_file(run))}, "stages.dense": None}

    def from_pruned(self, run: Path) -> Settings:
        """The checkpoint that the run left, which names its own network."""
        return {"model": {"weights": str(run / "pruned.pt")}, "stages.dense": None}

    def taught_by_dense(self, run: Path) -> Settings:
        """The same file as ``from_dense``, unless the recipe names a teacher."""
        if self.distillation is None or self.distillation.teacher is not None:
            return {}
        return {"distillation.teacher": str(self._dense_file(run))}

    def _dense_file(self, run: Path) -> Path | None:
        best = run / "checkpoints" / "dense" / "weights" / "best.pt"
        return best if self.stages.dense is not None else self.model.weights

    def options(self, stage: str) -> dict[str, Any]:
        """Ultralytics' options of a stage, with what constrained training fixes."""
        spec = getattr(self.stages, stage)
        options = {
            "plots": False,
            "imgsz": self.kind.imgsz,
            **self.train,
            **(spec.train if spec else {}),
        }
        if stage == "constrained":
            if str(options.get("optimizer", "auto")).lower() == "auto":
                options["optimizer"] = "SGD"
            options["patience"] = 0
        return options
