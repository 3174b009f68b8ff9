# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics' own trainers with settings, and with data sets that cannot run code.

One class body serves all tasks: an object of it is made from Ultralytics' trainer of the task too, which the model
names (``YOLO("yolov8n-seg.pt").train(trainer=…)``).
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any, ClassVar, Self

from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils.torch_utils import unwrap_model

from detprune.errors import InputError, NonFiniteError, StorageError
from detprune.files.storage import storage_reason, way_out
from detprune_yolo.channels import network_to_train
from detprune_yolo.data.building import build_images
from detprune_yolo.data.images import labels_folder
from detprune_yolo.data.places import check_place
from detprune_yolo.descriptions import check_network, refuse_fused
from detprune_yolo.detectors import check_start
from detprune_yolo.kinds import DETECT, TASKS, Kind, is_end_to_end
from detprune_yolo.process_state import no_downloads
from detprune_yolo.training.settings import Stage, StageSettings, own_modules


class TaskTrainer(BaseTrainer):  # type: ignore[misc]
    """Trains networks of all tasks; carries its settings into every process that Ultralytics starts."""

    settings: ClassVar[StageSettings] = StageSettings(stage="dense")
    kind: ClassVar[Kind] = DETECT

    def __new__(
        cls,
        cfg: Any = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: dict[str, list[Callable[[Any], None]]] | None = None,
    ) -> Self:
        """An object of this class and of Ultralytics' trainer of the task.

        Raises:
            InputError: a model that cannot be pruned, or one of another task; nothing is written before.
        """
        given = overrides or {}
        kind = check_start(given.get("model"), given.get("task"))
        if kind is None:
            kind = TASKS[given.get("task") or "detect"]
        made: type[Any] = _of_kind(cls, kind)  # type: ignore[arg-type]  # a class is hashable
        return super().__new__(made)  # type: ignore[no-any-return]

    def __init__(
        self,
        cfg: Any = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: dict[str, list[Callable[[Any], None]]] | None = None,
    ) -> None:
        labels_folder()  # before other processes are started, which share it
        super().__init__(cfg, {**(overrides or {}), "task": self.kind.task}, _callbacks)

    @classmethod
    def told(cls, settings: StageSettings) -> type[Self]:
        """Return this trainer with settings as a class, because Ultralytics makes the object, also in other processes.

        Those get the class itself, with its settings (cloudpickle).
        """
        return type(cls.__name__, (cls,), {"settings": settings, "__module__": cls.__module__})

    @property
    def stage(self) -> Stage:
        """The stage, which events and seeds are named after."""
        return self.settings.stage

    def train(self) -> None:
        """Train; on several GPUs, in one process for each.

        Raises:
            StorageError: in a training without a run, which has its own, a disk that is full or read-only.
        """
        try:
            with own_modules() if self.ddp else nullcontext():
                super().train()
        except (OSError, RuntimeError) as error:
            said = storage_reason(error, self.save_dir)
            if said is None or self.settings.run_dir is not None:
                raise
            raise StorageError(
                f"{said}; {way_out(error)}, then train with resume=True from {self.last}; where there is no "
                "last.detprune.pt beside it, train anew"
            ) from error

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Ultralytics' recovery from a loss that is NaN, which ends training after a few attempts.

        Raises:
            NonFiniteError: it gave up, or its last checkpoint is not finite either.
        """
        try:
            recovered: bool = super()._handle_nan_recovery(epoch)
        except RuntimeError as error:
            if type(error) is not RuntimeError or "NaN" not in str(error):
                raise
            raise NonFiniteError(
                f"training has diverged ({error}); lower the learning rate or rho"
            ) from error
        return recovered

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        """The network to train, of this trainer's kind.

        Of one with a one-to-one branch that branch is validated, as it will be used, unless the option ``nms`` is true.
        """
        if weights is not None:
            self._check_kind(weights)
        model = network_to_train(cfg, weights, self.data)
        if model is None:
            model = super().get_model(cfg, weights, verbose)
        self._check_kind(model)
        if is_end_to_end(model):
            if self.args.nms is None:
                self.args.nms = False
            model.end2end = self.args.nms is False
        return model

    def _check_kind(self, network: Any) -> None:
        refuse_fused(network, "the model")
        if (
            kind := check_network(network, "the model")
        ) != self.kind:  # in another process it is a copy
            raise InputError(
                f"the model is a network for {kind.description()}, but it would be trained for "
                f"{self.kind.description()}; give the file or the description of the network itself as the model"
            )

    def get_dataset(self) -> Any:
        """Ultralytics' description of the data set, whose ``download`` is not followed: it may be code."""
        check_place(str(self.args.data), self.args.split, self.kind)
        return super().get_dataset()

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> Any:
        """The images of a split, without Ultralytics' caches."""
        stride = max(int(unwrap_model(self.model).stride.max()), 32)
        rect = mode == "val"
        return build_images(
            self.args, img_path, batch, self.data, self.kind, mode=mode, rect=rect, stride=stride
        )

    def _setup_train(self) -> None:
        with no_downloads():
            super()._setup_train()


@cache
def _of_kind(cls: type[TaskTrainer], kind: Kind) -> type[TaskTrainer]:
    """A trainer over Ultralytics' own trainer of the kind, which it overrides."""
    made_for = None if cls is TaskTrainer else cls.__dict__.get("kind")
    if made_for == kind:  # the class of another process
        return cls
    if made_for is not None:
        raise InputError(
            f"this trainer was made for {made_for.description()}, but the model is a network for {kind.description()}"
        )
    names = {"kind": kind, "__module__": cls.__module__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls, kind.trainer), names)
