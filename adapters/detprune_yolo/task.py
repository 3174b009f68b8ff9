# SPDX-License-Identifier: AGPL-3.0-or-later
"""Detection as a task of the pipeline: Ultralytics trains, pycocotools measures."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml
from torch import nn
from torch.optim import Optimizer

from detprune.budgets import Budget
from detprune.channels import CoupledChannels, Forward
from detprune.errors import DetpruneError, InputError, NonFiniteError
from detprune.files import load_tensors
from detprune.files.atomic import atomic
from detprune.methods import OneShot
from detprune.networks.batch_norm import statistics_layers
from detprune.pruner import Pruner
from detprune.run.directory import LOGGER, RunDirectory
from detprune.run.measuring.sources import Opened
from detprune.run.recipe import Recipe
from detprune.run.report.pictures import write_pictures
from detprune.run.seeds import seed_all
from detprune.run.task import Task, check_teacher
from detprune_yolo.channels import budget_of, example, mark, run_detector, state_widths
from detprune_yolo.data.check import DetectionData, check_data
from detprune_yolo.data.drawing import cached
from detprune_yolo.exclusions import (
    check_not_frozen,
    freeze_layers,
    frozen_batch_norms,
    merged_note,
)
from detprune_yolo.measure.calibration import TrainingImages, estimate_batch_norm, task_loss
from detprune_yolo.measure.validation import validate
from detprune_yolo.networks import architecture, build_network
from detprune_yolo.options import check_device
from detprune_yolo.pictures import detection_pictures
from detprune_yolo.process_state import quiet
from detprune_yolo.recipe import DetectionRecipe
from detprune_yolo.training.distillation import check_fits
from detprune_yolo.training.epochs import check_every
from detprune_yolo.training.resumable import ResumableTrainer
from detprune_yolo.training.run_stage import run_stage
from detprune_yolo.training.settings import StageSettings
from detprune_yolo.training.sidecar import remove_sidecar
from detprune_yolo.training.sizes import check_sizes
from detprune_yolo.training.trainers import ConstrainedTrainer, RetrainingTrainer
from detprune_yolo.weights.checkpoints import (
    load_model,
    pruned_checkpoint,
    round_to_half,
    save_checkpoint,
)
from detprune_yolo.weights.deployment import open_file
from detprune_yolo.weights.filenames import check_output_name


class DetectionTask(Task):
    """Prunes an Ultralytics detector.

    Every stage is one ``train()`` of Ultralytics in ``checkpoints/<stage>``, which begins with the
    file of the stage before. Like all its checkpoints, those hold weights in half precision: that is
    what is measured, and what ``pruned.pt`` holds.
    """

    metric: ClassVar[str] = "mAP@0.5"

    def __init__(self, recipe: Recipe, run: RunDirectory) -> None:
        if not isinstance(recipe, DetectionRecipe):
            raise InputError(f"the recipe is a {type(recipe).__name__}, not a DetectionRecipe")
        super().__init__(recipe, run)
        self.recipe: DetectionRecipe = recipe
        for stage in self.epochs:
            check_device(recipe.options(stage).get("device"))
        if recipe.distillation is not None:
            check_teacher(recipe.distillation.teacher)
        check_output_name(run.checkpoints.absolute() / "dense" / "weights" / "best.pt")

    # ---------------------------------------------------------------- model and data

    @cached_property
    def _yaml(self) -> Path:
        spec = self.recipe.data
        if spec.yaml is not None:
            return spec.yaml.expanduser().absolute()
        if spec.drawn is None:
            raise InputError("data needs either yaml or drawn")
        return cached(spec.drawn)

    @cached_property
    def _data(self) -> DetectionData:
        return check_data(self._yaml)

    @property
    def model_name(self) -> str:
        """Architecture or checkpoint."""
        spec = self.recipe.model
        if spec.weights is not None:
            return spec.weights.name
        return Path(str(spec.cfg)).stem + (f", width {spec.width:g}" if spec.width else "")

    @property
    def data_name(self) -> str:
        """The data set's name and its number of training images."""
        drawn = self.recipe.data.drawn
        name = self._yaml.stem if drawn is None else f"drawn shapes ({drawn.size} px)"
        return f"{name}, {len(self._data.images['train']):,} training images"

    @property
    def epochs(self) -> Mapping[str, int]:
        """Epochs of the three stages."""
        stages = self.recipe.stages
        return {
            "dense": stages.dense.epochs if stages.dense else 0,
            "constrained": stages.constrained.epochs,
            "retrain": stages.retrain.epochs,
        }

    @property
    def notes(self) -> Sequence[str]:
        """Who taught, and on which images mAP is measured, if not on those of validation."""
        notes = []
        if self.recipe.distillation is not None:
            taught = self.recipe.distillation
            notes.append(
                f"Constrained training and masked retraining learn from {taught.teacher or 'the dense detector'} "
                f"too: weight {taught.weight:g}."
            )
        split = self.recipe.data.split
        if split == "train":
            notes.append(
                "mAP is measured on the training images: it says how well they are remembered."
            )
        if split == "test":
            notes.append(
                "mAP is measured on the test images, of which training saw nothing; Ultralytics picked its "
                "best epochs on the validation images."
            )
        return notes

    def build_model(self) -> Any:
        """The detector on the CPU, with the checkpoint's weights or initial ones."""
        seed_all(self.recipe.seed)
        fixed = self.recipe.stages.dense is None
        with quiet():
            network = build_network(self.recipe.model, self._data.names, any_classes=not fixed)
        if fixed:
            check_data(self._yaml, nc=len(network.names))
        if isinstance(self.recipe.set, CoupledChannels):  # single weights are excluded by name
            freeze_layers(network, self.recipe.options("constrained").get("freeze"))
        return network

    def budget(self, model: nn.Module) -> Budget:
        """The budget, with the first convolution, the head's last ones and frozen layers left dense.

        For whole channels as it is: what is frozen is so in the network.
        """
        freeze = self.recipe.options("constrained").get("freeze")
        return budget_of(self.recipe.budget, self.recipe.set, model, freeze)

    def example_inputs(self, model: nn.Module) -> tuple[Sequence[object], Forward]:
        """One image of the size that is trained on; the head's raw predictions count."""
        return (example(model, self._image_size),), run_detector

    def finish_shrinking(self, network: nn.Module) -> None:
        """What Ultralytics' modules state, and that no yaml describes the network."""
        state_widths(network)
        mark(network)

    def plan_notes(self, model: nn.Module) -> Sequence[str]:
        """Branches that fusing merges, which lose the same whole channels; key points that no detector learns."""
        whole = isinstance(self.recipe.set, CoupledChannels)
        note = None if whole else merged_note(self.recipe.budget, model)
        notes = [] if note is None else [note]
        if self._data.pose:
            notes.append(
                "the data yaml has kpt_shape: of pose labels the detector learns the boxes, and no key points"
            )
        return notes

    def check_before_training(self, model: Any) -> None:
        """A teacher of its own has to load, and to fit; what is pruned must move; outer iterations need steps."""
        spec = self.recipe.distillation
        if spec is not None and spec.teacher is not None:
            check_fits(model, load_model(spec.teacher.expanduser()), str(spec.teacher))
        for stage in ("dense", "constrained", "retrain"):
            stated = getattr(self.recipe.stages, stage)
            if stated is not None and stated.epochs:
                check_sizes(model, self.recipe.options(stage), self._images_of_an_epoch(stage))
        options = self.recipe.options("constrained")
        check_not_frozen(self.recipe.budget, model, options.get("freeze"))
        batch, constrained = int(options.get("batch", 16)), self.recipe.stages.constrained
        if batch >= 1 and not self.recipe.method.has_inner_loop:
            images = self._images_of_an_epoch("constrained")
            accumulated = max(1, round(int(options.get("nbs", 64)) / batch))
            check_every(constrained.every, math.ceil(images / batch), accumulated)

    def _images_of_an_epoch(self, stage: str) -> int:
        share = float(self.recipe.options(stage).get("fraction", 1.0))
        return max(1, round(len(self._data.images["train"]) * share))

    def constrained_optimizer(self, model: nn.Module) -> Optimizer:
        """SGD, or one that stands for all others: methods tell these two apart."""
        name = str(self.recipe.options("constrained")["optimizer"]).upper()
        kind = torch.optim.SGD if name == "SGD" else torch.optim.Adam
        return kind(model.parameters(), lr=0.01)

    # ---------------------------------------------------------------- stages

    def train_dense(self, model: Any) -> None:
        """Train the baseline; ends with Ultralytics' best epoch."""
        spec = self.recipe.model
        if spec.weights is not None:
            start = self._start("dense", model, None)
        elif spec.width is None:
            start = Path(str(spec.cfg))  # Ultralytics reads the scale from its name
        else:
            start = self._start_file("dense.yaml")
            with atomic(start) as temporary:
                temporary.write_text(yaml.safe_dump(architecture(spec)), encoding="utf-8")
        weights = self._train(ResumableTrainer, StageSettings(stage="dense"), start)
        self.load_weights(model, weights / "best.pt")
        model.names = self._data.names

    def train_constrained(self, model: nn.Module) -> Pruner:
        """Constrained training; the pruner has hard-pruned already what Ultralytics ended with."""
        spec, data = self.recipe.stages.constrained, self.recipe.data
        if spec.epochs == 0:
            return self._pruner(model)
        fixed = {
            key: value
            for key, value in self.recipe.options("constrained").items()
            if key in ("optimizer", "patience")
        }
        LOGGER.info("constrained training fixes %s", fixed)
        settings = StageSettings(
            stage="constrained",
            method=self.recipe.method,
            set=self.recipe.set,
            budget=self.recipe.budget,
            every=spec.every,
            check_every=spec.check_every,
            stop_at=spec.stop_at,
            prune=spec.prune,
            batch_norm_images=self.recipe.batch_norm_images,
            annotations=None if data.split == "test" else data.annotations,
            **self._teacher(),
        )
        start = self._start("constrained", model, None)
        weights = self._train(ConstrainedTrainer, settings, start)
        way_out = f"delete {weights.parent} and resume, to train this stage again"
        with self.run.own_file(way_out):
            self.load_weights(model, weights / "hard_pruned.pt")
        pruner = self._pruner(model)
        state = load_tensors(weights / "pruner.pt", way_out)
        try:
            pruner.load_state_dict(state)
        except InputError as error:
            raise InputError(f"{weights / 'pruner.pt'}: {error}; {way_out}") from error
        return pruner

    def _pruner(self, model: nn.Module) -> Pruner:
        return Pruner(model, None, OneShot(), self.sparsity_set(model), self.budget(model))

    def retrain(self, model: nn.Module, pruner: Pruner | None) -> None:
        """Masked retraining, or that of the small network; ends with Ultralytics' best epoch."""
        masks = None if pruner is None else pruner.masks or {}
        start = self._start("retrain", model, masks)
        settings = StageSettings(stage="retrain", **self._teacher())
        weights = self._train(RetrainingTrainer, settings, start)
        self.load_weights(model, weights / "best.pt")
        trained = dict(model.named_parameters())
        for name, mask in (masks or {}).items():
            if torch.count_nonzero(trained[name].detach()[~mask]):
                raise DetpruneError(f"{weights / 'best.pt'}: {name} has nonzero masked weights")

    def _start(
        self, stage: str, model: nn.Module, masks: Mapping[str, torch.Tensor] | None
    ) -> Path:
        """Write a file that a stage begins with."""
        start = self._start_file(f"{stage}.pt")
        try:
            checkpoint = pruned_checkpoint(model, masks)
        except NonFiniteError as error:
            raise NonFiniteError(
                f"the network with which the stage {stage} begins: {error}"
            ) from error
        save_checkpoint(start, checkpoint)
        return start

    def _start_file(self, name: str) -> Path:
        # not in the stage's own folder, which Ultralytics empties before it starts several processes
        folder = self.run.checkpoints / "start"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def _train(self, kind: type[ResumableTrainer], settings: StageSettings, start: Path) -> Path:
        """Train a stage; returns the folder of its weights."""
        options = {
            **self.recipe.options(settings.stage),
            "data": str(self._yaml),
            "split": self.recipe.data.training_split,
            "epochs": self.epochs[settings.stage],
            "seed": self.recipe.seed,
        }
        return run_stage(kind, settings, start, self.run, options)

    def _teacher(self) -> dict[str, Any]:
        """The settings of a stage that say who teaches; empty if nobody does."""
        spec = self.recipe.distillation
        if spec is None:
            return {}
        if spec.teacher is not None:
            dense: Any = load_model(spec.teacher.expanduser())
        else:
            dense = self.build_model()
            self.load_weights(dense, self.run.checkpoints / "dense.pt")
        path = self._start("teacher", dense, None)
        return {"teacher": path.absolute(), "teacher_weight": spec.weight}

    # ---------------------------------------------------------------- measuring

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """pycocotools' mAP, and Ultralytics' own on the same detections, in float32."""
        options = self.recipe.options("retrain")
        scores = validate(
            model,
            self._yaml,
            imgsz=self._image_size,
            batch=self._batch,
            split=self.recipe.data.split,
            device=_first_device(options.get("device")),
            workers=int(options.get("workers", 8)),
            annotations=self.recipe.data.annotations,
            max_det=int(options.get("max_det", 300)),
        )
        return {
            self.metric: scores.coco.map50,
            "mAP@[.5:.95]": scores.coco.map50_95,
            "mAP50 (Ultralytics' own)": scores.ultralytics_map50,
            "mAP50-95 (Ultralytics' own)": scores.ultralytics_map50_95,
        }

    def estimate_batch_norm(self, model: nn.Module) -> int:
        """From training images as validation would load them."""
        images = self._training_images(self.recipe.batch_norm_images)
        frozen = frozen_batch_norms(model, self.recipe.options("constrained").get("freeze"))
        estimate_batch_norm(model, images, self._device, frozen=frozen)
        return len(images)

    def finish_hard_pruning(self, model: nn.Module) -> int:
        """The trainer estimated the statistics already, for ``hard_pruned.pt``."""
        if not self.recipe.stages.constrained.epochs:
            return self.renew_batch_norm(model)
        asked = self.recipe.batch_norm_images if statistics_layers(model) else 0
        return min(asked, len(self._data.images["train"]))

    def loss_probe(self, model: nn.Module, images: int) -> Callable[[], float]:
        """Ultralytics' detection loss per image."""
        probes = self._training_images(images)
        return lambda: task_loss(model, probes, self._device)

    def _training_images(self, count: int) -> TrainingImages:
        return TrainingImages(self._yaml, count=count, imgsz=self._image_size, batch=self._batch)

    @property
    def _device(self) -> torch.device:
        return torch.device(_first_device(self.recipe.options("retrain").get("device")))

    @property
    def _batch(self) -> int:
        batch = int(self.recipe.options("retrain").get("batch", 16))
        return batch if batch >= 1 else 16

    @property
    def _image_size(self) -> int:
        return int(self.recipe.options("retrain").get("imgsz", 640))

    def load_weights(self, model: nn.Module, path: Path) -> None:
        """Load weights of the same architecture: a stage's plain ones, or an Ultralytics checkpoint."""
        if path.parent == self.run.checkpoints:
            state = load_tensors(path, self.run.way_out)
        else:
            state = load_model(path).state_dict()
        try:
            model.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise InputError(f"{path} does not fit the network: {error}") from error

    def load_network(self, path: Path) -> nn.Module:
        """The network in a checkpoint, with fewer channels where they were removed."""
        if isinstance(self.recipe.set, CoupledChannels):
            network: nn.Module = load_model(path)
            return network
        return super().load_network(path)

    def pruned_file(self, model: nn.Module, pruner: Pruner | None) -> object:
        """An Ultralytics checkpoint, which also carries the masks if there are any."""
        options = {**self.recipe.options("retrain"), "data": str(self._yaml)}
        try:
            masks = None if pruner is None else pruner.masks
            return pruned_checkpoint(model, masks, train_args=options)
        except NonFiniteError as error:
            raise NonFiniteError(f"the network after the stage retrain: {error}") from error

    def round_as_saved(self, network: nn.Module) -> None:
        """To half precision: batch norm's statistics were estimated in single precision."""
        round_to_half(network)

    @staticmethod
    def open_file(path: Path) -> Opened:
        """The network of any Ultralytics checkpoint, for ``detprune measure``."""
        return open_file(path)

    def illustrate(self) -> None:
        """Detections of the dense, hard-pruned and final network on the same images."""
        for stage in self.epochs:  # all are finished
            remove_sidecar(self.run.checkpoints / stage / "weights")
        models = {}
        for title, stage in (
            ("dense", "dense"),
            ("hard-pruned", "hard_pruned"),
            ("final", "final"),
        ):
            models[title] = self.network_after(stage)
        folder = self.run.path / "pictures"
        pictures = detection_pictures(
            models,
            self._yaml,
            folder,
            imgsz=self._image_size,
            split=self.recipe.data.split,
            device=_first_device(self.recipe.options("retrain").get("device")),
        )
        write_pictures(pictures, folder)


def _first_device(device: Any) -> str:
    """The one device on which is measured, of those on which Ultralytics trains."""
    named = ",".join(map(str, device)) if isinstance(device, list | tuple) else str(device)
    first = named.strip("()[] ").split(",")[0].strip()
    if first in ("", "None", "-1"):
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    return f"cuda:{first}" if first.isdigit() else first
