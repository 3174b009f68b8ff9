# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics' own trainer with settings, for detectors alone, and with data sets that cannot run code."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, ClassVar, Self

from ultralytics.data.utils import check_det_dataset
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils.torch_utils import unwrap_model

from detprune.errors import InputError
from detprune_yolo.channels import network_to_train
from detprune_yolo.data.images import build_images, labels_folder
from detprune_yolo.detectors import check_network, check_start
from detprune_yolo.process_state import no_downloads
from detprune_yolo.training.settings import Stage, StageSettings, own_modules


class DetectorTrainer(DetectionTrainer):  # type: ignore[misc]
    """Trains detectors; carries its settings into every process that Ultralytics starts."""

    settings: ClassVar[StageSettings] = StageSettings(stage="dense")

    def __init__(
        self,
        cfg: Any = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: dict[str, list[Callable[[Any], None]]] | None = None,
    ) -> None:
        given = overrides or {}
        check_start(given.get("model"), given.get("task"))  # before a folder is made
        labels_folder()  # before other processes are started, which share it
        super().__init__(cfg, overrides, _callbacks)

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
        """Train; on several GPUs, in one process for each."""
        with own_modules() if self.ddp else nullcontext():
            super().train()

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        """The network to train, a detector."""
        if weights is not None:
            check_network(weights, "the model")
        if (smaller := network_to_train(cfg, weights, self.data)) is not None:
            return self.set_model_names_for_load(smaller)
        model = super().get_model(cfg, weights, verbose)
        check_network(model, "the model")
        return model

    def get_dataset(self) -> Any:
        """Ultralytics' description of the data set, whose ``download`` is not followed: it may be code."""
        data = str(self.args.data)
        try:
            if "://" in data or data.endswith(".ndjson"):
                raise FileNotFoundError("it is not a file on this machine")
            check_det_dataset(data, autodownload=False, split=self.args.split)
        except FileNotFoundError as error:
            raise InputError(
                f"data is {data}: {str(error).strip().splitlines()[0]}; put the images there first, because "
                "nothing is downloaded"
            ) from error
        return super().get_dataset()

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> Any:
        """The images of a split, without Ultralytics' caches."""
        stride = max(int(unwrap_model(self.model).stride.max()), 32)
        rect = mode == "val"
        return build_images(
            self.args, img_path, batch, self.data, mode=mode, rect=rect, stride=stride
        )

    def _setup_train(self) -> None:
        with no_downloads():
            super()._setup_train()
