# SPDX-License-Identifier: AGPL-3.0-or-later
"""The network of a run: Ultralytics' networks and data, measured by pycocotools and Ultralytics' own validator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from ultralytics.data.utils import img2label_paths

from detprune.budgets import Budget
from detprune.channels import CoupledChannels, Forward
from detprune.errors import InputError
from detprune.run.beginning import content_fact, digest, file_fact, pixels_fact
from detprune.run.measuring.sources import Opened
from detprune.run.metrics import Metric
from detprune.run.recipe import Recipe
from detprune.run.seeds import seed_all
from detprune.run.shared_images import tell_shared
from detprune.run.task import NetworkTask
from detprune_yolo.channels import budget_of, mark, state_widths
from detprune_yolo.data.check import DetectionData, check_data
from detprune_yolo.data.drawing import cached
from detprune_yolo.exclusions import (
    freeze_layers,
    frozen_batch_norms,
    merged_note,
)
from detprune_yolo.forward import example, run_detector
from detprune_yolo.kinds import Kind, is_end_to_end
from detprune_yolo.measure.calibration import TrainingImages, estimate_batch_norm, task_loss
from detprune_yolo.measure.validation import validate
from detprune_yolo.networks import build_network
from detprune_yolo.process_state import quiet
from detprune_yolo.recipe import DetectionRecipe
from detprune_yolo.weights.checkpoints import (
    load_model,
)
from detprune_yolo.weights.deployment import open_file


class DetectionNetworkTask(NetworkTask):
    """Builds and measures a network of Ultralytics, in float32, with weights as files hold them (half precision)."""

    recipe_type: ClassVar[type[Recipe]] = DetectionRecipe
    recipe: DetectionRecipe

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of the network's kind; of boxes, masks and poses mAP, of classes accuracy."""
        return self._kind.metrics

    @cached_property
    def _kind(self) -> Kind:
        return self.recipe.kind

    @cached_property
    def _yaml(self) -> Path:
        spec = self.recipe.data
        if spec.yaml is not None:
            return spec.yaml.expanduser().absolute()
        if spec.drawn is None:
            raise InputError("data needs either yaml or drawn")
        task: Any = spec.drawn.task or self._kind.task
        return cached(replace(spec.drawn, task=task))

    @cached_property
    def _data(self) -> DetectionData:
        found = check_data(self._yaml, kind=self._kind)
        split = self.recipe.data.split
        if split != "train":  # that is asked for, and has its note
            train, measured = (map(str, found.images.get(part, [])) for part in ("train", split))
            tell_shared(train, measured, "name other images in the data")
        return found

    @property
    def data_yaml(self) -> Path:
        """The data set in Ultralytics' format."""
        return self._yaml

    @property
    def model_name(self) -> str:
        """Name of the architecture or of the checkpoint."""
        spec = self.recipe.model
        if spec.weights is not None:
            return spec.weights.name
        return Path(str(spec.cfg)).stem + (f", width {spec.width:g}" if spec.width else "")

    @property
    def data_name(self) -> str:
        """The data set's name and its number of training images."""
        drawn = self.recipe.data.drawn
        name = self._yaml.stem if drawn is None else f"drawn shapes ({drawn.size} px)"
        images = len(self._data.images["train"])
        used = max(
            1, round(images * float(self.recipe.options("constrained").get("fraction", 1.0)))
        )
        count = f"{images:,}" if used == images else f"{used:,} of {images:,}"
        return f"{name}, {count} training images"

    @property
    def notes(self) -> Sequence[str]:
        """Notes on the teacher, and on the images of mAP if they are not those of validation."""
        notes = []
        if self.recipe.distillation is not None:
            taught = self.recipe.distillation
            notes.append(
                f"Constrained training and masked retraining learn from {taught.teacher or 'the dense detector'} "
                f"too: weight {taught.weight:g}."
            )
        split, metric = self.recipe.data.split, self.metric
        if split == "train":
            notes.append(
                f"{metric} is measured on the training images, so it shows how well they are remembered."
            )
        if split == "test":
            notes.append(
                f"{metric} is measured on the test images, which training never saw; Ultralytics picked its "
                "best epochs on the validation images."
            )
        return notes

    def data_facts(self) -> Mapping[str, str]:
        """The classes; number and digest of the images by their sizes; digests of pixels, labels and annotations."""
        found = {"classes": ", ".join(map(str, self._data.names.values()))}
        for split, images in self._data.images.items():
            paths = [] if self._kind.labels == "folders" else [str(image) for image in images]
            labels = img2label_paths(paths)
            facts = map(file_fact, (*images, *labels))
            found[f"{split} images"] = f"{len(images):,} ({digest(facts)})"
            found[f"{split} pixels"] = pixels_fact(images)
            found[f"{split} labels"] = digest(map(content_fact, labels))
        if (annotations := self.recipe.data.annotations) is not None:
            found["annotations"] = digest([content_fact(annotations.expanduser())])
        return found

    def build_model(self) -> Any:
        """The detector on the CPU, with the checkpoint's weights or initial ones."""
        seed_all(self.recipe.seed)
        fixed = self.recipe.stages.dense is None
        with quiet():
            network = build_network(
                self.recipe.model,
                self._data.names,
                any_classes=not fixed,
                kpt_shape=self._data.kpt_shape,
            )
        if fixed:
            check_data(self._yaml, nc=len(network.names), kind=self._kind)
        if isinstance(self.recipe.set, CoupledChannels):  # single weights are excluded by name
            freeze_layers(network, self.recipe.options("constrained").get("freeze"))
        self._choose_branch(network)
        return network

    def _choose_branch(self, network: Any) -> None:
        """Let a network with two branches be measured by the one that the option ``nms`` names."""
        if is_end_to_end(network):
            network.end2end = self.recipe.options("retrain").get("nms") is not True

    def budget(self, model: nn.Module) -> Budget:
        """The budget, with the first convolution, the head's last ones and frozen layers left dense.

        For whole channels as it is: what is frozen is so in the network.
        """
        freeze = self.recipe.options("constrained").get("freeze")
        return budget_of(self.stated_budget, self.recipe.set, model, freeze)

    def example_inputs(self, model: nn.Module) -> tuple[Sequence[object], Forward]:
        """One image of the training's size; the outputs are the head's raw predictions."""
        return (example(model, self._image_size),), run_detector

    def finish_shrinking(self, network: nn.Module) -> None:
        """Update the widths that Ultralytics' modules store, and mark the yaml, which describes the dense network."""
        state_widths(network)
        mark(network)

    def plan_notes(self, model: nn.Module) -> Sequence[str]:
        """Notes on branches that fusing merges, on the branch that is measured, and on key points that are ignored."""
        whole = isinstance(self.recipe.set, CoupledChannels)
        note = None if whole else merged_note(self.recipe.budget, model)
        notes = [] if note is None else [note]
        if is_end_to_end(model):
            one = getattr(model, "end2end", False)
            notes.append(
                "all numbers are those of the head's one-to-one branch, without non-maximum suppression; Ultralytics "
                "takes it with nms=False"
                if one
                else "all numbers are those of the head's one-to-many branch, with non-maximum suppression (nms: true)"
            )
        if self._data.pose and self._kind.labels == "boxes":
            notes.append(
                "the data yaml has kpt_shape: from pose labels the detector learns the boxes, but no key points"
            )
        return notes

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """The metrics by pycocotools and by Ultralytics on the same predictions, in float32."""
        return self._scores(model)

    def evaluate_exported(self, model: nn.Module, path: Path | None = None) -> Mapping[str, float]:
        """The metrics of an exported file, on images padded to squares, as most formats take them.

        Args:
            model: the network that was exported.
            path: the file or folder; None measures the network itself on the same images.
        """
        return self._scores(model, rect=False, exported=path)

    def _scores(self, model: nn.Module, **how: Any) -> Mapping[str, float]:
        options = self.recipe.options("retrain")
        scores = validate(
            model,
            self._yaml,
            imgsz=self._image_size,
            batch=self._batch,
            split=self.recipe.data.split,
            device=first_device(options.get("device")),
            workers=int(options.get("workers", 8)),
            annotations=self.recipe.data.annotations,
            max_det=int(options.get("max_det", 300)),
            **how,
        )
        return scores.of(self._kind)

    def estimate_batch_norm(self, model: nn.Module) -> int:
        """Estimate the statistics on training images, loaded as in validation."""
        images = self._training_images(self.recipe.batch_norm_images)
        frozen = frozen_batch_norms(model, self.recipe.options("constrained").get("freeze"))
        estimate_batch_norm(model, images, self._device, frozen=frozen)
        return len(images)

    def loss_probe(self, model: nn.Module, images: int) -> Callable[[], float]:
        """A function that gives Ultralytics' loss of the task per image."""
        probes = self._training_images(images)
        return lambda: task_loss(model, probes, self._device)

    def _training_images(self, count: int) -> TrainingImages:
        return TrainingImages(
            self._yaml, count=count, imgsz=self._image_size, batch=self._batch, kind=self._kind
        )

    @property
    def _device(self) -> torch.device:
        return torch.device(first_device(self.recipe.options("retrain").get("device")))

    @property
    def _batch(self) -> int:
        batch = int(self.recipe.options("retrain").get("batch", 16))
        return batch if batch >= 1 else 16

    @property
    def _image_size(self) -> int:
        return int(self.recipe.options("retrain").get("imgsz", self._kind.imgsz))

    def load_weights(self, model: nn.Module, path: Path) -> None:
        """Load an Ultralytics checkpoint of the same architecture."""
        take_up(model, load_model(path).state_dict(), path)

    def load_network(self, path: Path) -> nn.Module:
        """The network in a checkpoint, with fewer channels where they were removed."""
        if isinstance(self.recipe.set, CoupledChannels):
            network: nn.Module = load_model(path)
            self._choose_branch(network)
            return network
        return super().load_network(path)

    @staticmethod
    def open_file(path: Path) -> Opened:
        """The network of any Ultralytics checkpoint, for ``detprune measure``."""
        return open_file(path)


def first_device(device: Any) -> str:
    """The first of the devices on which Ultralytics trains; measurements run on it."""
    named = ",".join(map(str, device)) if isinstance(device, list | tuple) else str(device)
    first = named.strip("()[] ").split(",")[0].strip()
    if first in ("", "None", "-1"):
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    return f"cuda:{first}" if first.isdigit() else first


def take_up(model: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    """Load weights into a network.

    Args:
        state: the weights by name.
        path: the file that they are from.

    Raises:
        InputError: they do not fit.
    """
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InputError(f"{path} does not fit the network: {error}") from error
