# SPDX-License-Identifier: AGPL-3.0-or-later
"""Detection as a task of the pipeline: Ultralytics trains, pycocotools measures."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.optim import Optimizer

from detprune.errors import DetpruneError, InputError, NonFiniteError
from detprune.files import load_tensors
from detprune.files.atomic import atomic
from detprune.methods import OneShot
from detprune.networks.batch_norm import statistics_layers
from detprune.pruner import Pruner
from detprune.run.directory import LOGGER, RunDirectory
from detprune.run.recipe import Recipe
from detprune.run.report.pictures import write_pictures
from detprune.run.task import Task, check_teacher
from detprune_yolo.exclusions import (
    check_not_frozen,
)
from detprune_yolo.measure.entries import read_json
from detprune_yolo.measure.truth import annotated_images
from detprune_yolo.network_task import DetectionNetworkTask, first_device, take_up
from detprune_yolo.networks import architecture
from detprune_yolo.options import check_device, images_of_a_batch
from detprune_yolo.pictures import detection_pictures
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
from detprune_yolo.weights.filenames import check_output_name


class DetectionTask(DetectionNetworkTask, Task):
    """Prunes an Ultralytics detector.

    Every stage is one ``train()`` of Ultralytics in ``checkpoints/<stage>``, which begins with the
    file of the stage before. Like all its checkpoints, those hold weights in half precision: that is
    what is measured, and what ``pruned.pt`` holds.
    """

    def __init__(self, recipe: Recipe, run: RunDirectory) -> None:
        super().__init__(recipe, run)
        for stage in self.epochs:
            check_device(self.recipe.options(stage).get("device"))
        if self.recipe.distillation is not None:
            check_teacher(self.recipe.distillation.teacher)
        check_output_name(run.checkpoints.absolute() / "dense" / "weights" / "best.pt")

    @property
    def epochs(self) -> Mapping[str, int]:
        """Epochs of the three stages."""
        stages = self.recipe.stages
        return {
            "dense": stages.dense.epochs if stages.dense else 0,
            "constrained": stages.constrained.epochs,
            "retrain": stages.retrain.epochs,
        }

    def check_before_training(self, model: Any) -> None:
        """Check teacher, annotations and sizes, that pruned weights are not frozen, and outer iterations have steps."""
        self._check_annotations()
        spec = self.recipe.distillation
        if spec is not None and spec.teacher is not None:
            check_fits(model, load_model(spec.teacher.expanduser()), str(spec.teacher))
        for stage in ("dense", "constrained", "retrain"):
            stated = getattr(self.recipe.stages, stage)
            if stated is not None and stated.epochs:
                check_sizes(model, self.recipe.options(stage), self._images_of_an_epoch(stage))
        options = self.recipe.options("constrained")
        check_not_frozen(self.recipe.budget, model, options.get("freeze"))
        batch, constrained = images_of_a_batch(options), self.recipe.stages.constrained
        if batch is not None and not self.recipe.method.has_inner_loop:
            images = self._images_of_an_epoch("constrained")
            accumulated = max(1, round(int(options.get("nbs", 64)) / batch))
            check_every(constrained.every, math.ceil(images / batch), accumulated)

    def _check_annotations(self) -> None:
        """Check the COCO file of the images that are measured: it is first used after a stage of training."""
        data = self.recipe.data
        if data.annotations is not None:
            file = data.annotations.expanduser()
            images = self._data.images.get(data.split, ())
            annotated_images(read_json(file), self._data.names, file, self._kind, images)

    def _images_of_an_epoch(self, stage: str) -> int:
        share = float(self.recipe.options(stage).get("fraction", 1.0))
        return max(1, round(len(self._data.images["train"]) * share))

    def constrained_optimizer(self, model: nn.Module) -> Optimizer:
        """An SGD optimizer, or one that stands for all others, because methods only tell SGD from the rest."""
        name = str(self.recipe.options("constrained")["optimizer"]).upper()
        kind = torch.optim.SGD if name == "SGD" else torch.optim.Adam
        return kind(model.parameters(), lr=0.01)

    def train_dense(self, model: Any) -> None:
        """Train the dense baseline; the result is Ultralytics' best epoch."""
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
        """Constrained training; the trainer has hard-pruned its final weights already."""
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
            budget=self.stated_budget,
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
        """Masked retraining, or retraining of the smaller network; the result is Ultralytics' best epoch."""
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
        """Write the file that a stage starts with."""
        start = self._start_file(f"{stage}.pt")
        try:
            checkpoint = pruned_checkpoint(model, masks)
        except NonFiniteError as error:
            raise NonFiniteError(f"the network that it starts with: {error}") from error
        save_checkpoint(start, checkpoint)
        return start

    def _start_file(self, name: str) -> Path:
        # not in the stage's own folder, which Ultralytics empties before it starts several processes
        folder = self.run.checkpoints / "start"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def _train(self, kind: type[ResumableTrainer], settings: StageSettings, start: Path) -> Path:
        """Train a stage; return the folder of its weights."""
        options = {
            **self.recipe.options(settings.stage),
            "data": str(self._yaml),
            "split": self.recipe.data.training_split,
            "epochs": self.epochs[settings.stage],
            "seed": self.recipe.seed,
        }
        return run_stage(kind, settings, start, self.run, options)

    def _teacher(self) -> dict[str, Any]:
        """The settings of a stage that name the teacher; empty without one."""
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

    def finish_hard_pruning(self, model: nn.Module) -> int:
        """Do nothing more: the trainer estimated the statistics already, for ``hard_pruned.pt``."""
        if not self.recipe.stages.constrained.epochs:
            return self.renew_batch_norm(model)
        asked = self.recipe.batch_norm_images if statistics_layers(model) else 0
        return min(asked, len(self._data.images["train"]))

    def pruned_file(self, model: nn.Module, pruner: Pruner | None) -> object:
        """An Ultralytics checkpoint, which also carries the masks if there are any."""
        options = {**self.recipe.options("retrain"), "data": str(self._yaml)}
        try:
            masks = None if pruner is None else pruner.masks
            return pruned_checkpoint(model, masks, train_args=options)
        except NonFiniteError as error:
            raise NonFiniteError(f"the network after the stage retrain: {error}") from error

    def round_as_saved(self, network: nn.Module) -> None:
        """Round to half precision, because batch norm's statistics were estimated in float32."""
        round_to_half(network)

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
            device=first_device(self.recipe.options("retrain").get("device")),
        )
        write_pictures(pictures, folder)

    def load_weights(self, model: nn.Module, path: Path) -> None:
        """Load an Ultralytics checkpoint, or the plain weights of a stage."""
        if path.parent == self.run.checkpoints:
            take_up(model, load_tensors(path, self.run.way_out), path)
        else:
            super().load_weights(model, path)
