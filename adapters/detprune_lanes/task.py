"""Lane detection as a task of the pipeline: Lightning trains, TuSimple's metric measures."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

import lightning as L
from detprune.budgets import Budget
from detprune.channels import Forward
from detprune.errors import InputError
from detprune.files.folders import user_cache
from detprune.pruner import Pruner
from detprune.run.beginning import digest, file_fact, pixels_fact
from detprune.run.metrics import Metric
from detprune.run.recipe import Recipe
from detprune.run.report.pictures import write_pictures
from detprune.run.shared_images import tell_shared
from detprune_lanes.data.frames import LaneFrames
from detprune_lanes.data.labels import Frame, read_labels
from detprune_lanes.data.roads.drawn import cached
from detprune_lanes.decode import tusimple_lanes
from detprune_lanes.module import LaneDetector, find_all, logits_of, score_frames
from detprune_lanes.network import deployment  # noqa: F401  # registers how lane networks are deployed
from detprune_lanes.network.checkpoints import checkpoint, load_checkpoint
from detprune_lanes.network.model import LaneNetwork
from detprune_lanes.network.trunks import load_imagenet
from detprune_lanes.pictures import draw_lanes, road_images
from detprune_lanes.recipe import LaneRecipe
from detprune_lightning.distillation import Teacher
from detprune_lightning.spec import StageSpec
from detprune_lightning.task import LightningNetworkTask, LightningTask

_SHOWN = 6  # frames in a picture
_RUN_TIME = 10  # ms, the value that the original writes; the metric allows up to 200

AUXILIARY = "aux_*"
"""Names of the segmentation branch, which is used in training alone: it stays dense and is not counted."""


class LaneNetworkTask(LightningNetworkTask):
    """Builds and measures an Ultra-Fast-Lane-Detection network."""

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("lane accuracy"),
        Metric("F1", per_cent=False),
        Metric("FP", per_cent=False, higher_is_better=False),
        Metric("FN", per_cent=False, higher_is_better=False),
    )
    recipe_type: ClassVar[type[Recipe]] = LaneRecipe
    recipe: LaneRecipe

    @cached_property
    def _frames(self) -> Mapping[str, list[Frame]]:
        """The labels of training and test frames, read once."""
        spec = self.recipe.data
        root = cached(spec.drawn) if spec.drawn is not None else Path(str(spec.root)).expanduser()
        frames = {}
        for split, names, limit in (
            ("train", spec.train, spec.train_limit),
            ("test", spec.test, spec.test_limit),
        ):
            found = read_labels(_label_files(root, split, names), root)
            frames[split] = found if limit is None else _spread(found, limit)
        train, test = ([str(frame.image) for frame in found] for found in frames.values())
        tell_shared(train, test, "name other label files as data.train or data.test")
        return frames

    def _images(self, split: str) -> LaneFrames:
        model, data = self.recipe.model, self.recipe.data
        training = split == "train"
        return LaneFrames(
            self._frames[split],
            model.grid,
            model.size,
            augment=data.augment if training else None,
            segmentation=training and model.auxiliary,
            cache=user_cache() / "frames" if data.cache else None,
        )

    @cached_property
    def _test(self) -> LaneFrames:
        return self._images("test")

    @cached_property
    def training_data(self) -> LaneFrames:
        """Augmented training frames with their targets."""
        return self._images("train")

    @property
    def model_name(self) -> str:
        """The trunk and the size of its input."""
        height, width = self.recipe.model.size
        return f"UFLD ResNet-{self.recipe.model.trunk}, {height} × {width}"

    @property
    def data_name(self) -> str:
        """The data set's name and its number of training frames."""
        data = self.recipe.data
        name = Path(str(data.root)).name
        if data.drawn is not None:
            name = "drawn roads" if data.drawn.labels is None else "drawn TuSimple"
        return f"{name}, {len(self._frames['train']):,} training frames"

    def data_facts(self) -> Mapping[str, str]:
        """Number and digest of the frames, with their lanes and the sizes of their files; digest of their pixels."""
        found = {}
        for split, frames in self._frames.items():
            found[f"{split} frames"] = f"{len(frames):,} ({digest(map(_fact, frames))})"
            found[f"{split} pixels"] = pixels_fact(frame.image for frame in frames)
        return found

    def build_model(self) -> LaneNetwork:
        """The network, with initial weights from the seed unless the recipe names weights."""
        spec = self.recipe.model
        L.seed_everything(self.recipe.seed, verbose=False)
        network = LaneNetwork(spec.trunk, spec.grid, spec.size, use_aux=spec.auxiliary)
        if spec.imagenet is not None:
            load_imagenet(network.model, spec.imagenet)
        if spec.weights is not None:
            load_checkpoint(network, spec.weights)
        return network

    def budget(self, model: nn.Module) -> Budget:
        """The budget over all convolutions and both linear layers; the auxiliary branch stays dense."""
        budget = self.stated_budget
        if budget.include is not None or not self.recipe.model.auxiliary:
            return budget
        return dataclasses.replace(budget, exclude=(*budget.exclude, AUXILIARY))

    def example_inputs(self, model: nn.Module) -> tuple[Sequence[object], Forward]:
        """One image; the auxiliary branch runs in training only, so it does not count in MACs."""
        inputs, _ = super().example_inputs(model)
        return inputs, _as_deployed

    def describe_network(self) -> dict[str, Any]:
        """Trunk, grid, size, and whether there is an auxiliary branch."""
        spec = self.recipe.model
        return {
            "trunk": spec.trunk,
            "grid": dataclasses.asdict(spec.grid),
            "size": list(spec.size),
            "auxiliary": spec.auxiliary,
        }

    def loss(self, model: nn.Module, batch: Sequence[Tensor]) -> Tensor:
        """The original's loss without the auxiliary branch."""
        images, target = batch[:2]
        return self.recipe.loss(logits_of(model, images), target)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """TuSimple's accuracy, F1, FP and FN on the test frames, in float32."""
        lanes = find_all(_lane_network(model), self._test, self.recipe)
        scores = score_frames(lanes, self._frames["test"])
        return {self.metric: scores.accuracy, "F1": scores.f1, "FP": scores.fp, "FN": scores.fn}

    def submission(self, model: nn.Module) -> str:
        """The lanes that the network finds in the test frames, as the lines of a TuSimple submission."""
        lines = []
        for frame, lanes in zip(
            self._frames["test"],
            find_all(_lane_network(model), self._test, self.recipe),
            strict=True,
        ):
            entry = {
                "raw_file": frame.raw_file,
                "lanes": tusimple_lanes(lanes),
                "h_samples": frame.rows.astype(int).tolist(),
                "run_time": _RUN_TIME,
            }
            lines.append(json.dumps(entry) + "\n")
        return "".join(lines)

    def load_weights(self, model: nn.Module, path: Path) -> None:
        """Load a checkpoint of the same network, with or without its auxiliary branch."""
        load_checkpoint(_lane_network(model), path)


class LaneTask(LaneNetworkTask, LightningTask):
    """Prunes an Ultra-Fast-Lane-Detection network."""

    @property
    def batch_size(self) -> int:
        """Frames in a training batch."""
        return self.recipe.data.batch_size

    def module(
        self, model: nn.Module, spec: StageSpec, teacher: Teacher | None
    ) -> L.LightningModule:
        """The LightningModule of the lane detector."""
        network = _lane_network(model)
        return LaneDetector(network, spec, self.training_data, self._test, self.recipe, teacher)

    def pruned_file(self, model: nn.Module, pruner: Pruner | None) -> object:
        """A checkpoint in the original repository's form, unless channels were removed."""
        if pruner is None:
            return super().pruned_file(model, None)
        drop = not self.recipe.model.deploy_auxiliary
        return checkpoint(_lane_network(model), drop_aux=drop)

    def illustrate(self) -> None:
        """Lanes of the dense, hard-pruned and final network over the same frames."""
        folder = self.run.path / "pictures"
        folder.mkdir(exist_ok=True)
        shown = _spread(self._frames["test"], _SHOWN)
        pictures = [
            {
                "file": "lanes.jpg",
                "title": "Lanes before and after pruning",
                "caption": f"{len(shown)} test frames, spread over the set; where all networks agree, only the "
                "rims of the lower lines are visible.",
            }
        ]
        sheets = [("lanes.jpg", shown)]
        if self.recipe.data.pictures is not None:
            sheets.append(("road_images.jpg", road_images(self.recipe.data.pictures, _SHOWN)))
            pictures.append(
                {
                    "file": "road_images.jpg",
                    "title": "Other road images",
                    "caption": "Images of data.pictures; they have no labels and are not part of any score.",
                }
            )
        networks = {}
        for title, stage in (
            ("dense", "dense"),
            ("hard-pruned", "hard_pruned"),
            ("final", "final"),
        ):
            networks[title] = _lane_network(self.network_after(stage))
        for file, frames in sheets:
            model = self.recipe.model
            images = LaneFrames(
                frames, model.grid, model.size, augment=None, segmentation=False, cache=None
            )
            lanes = {title: find_all(n, images, self.recipe) for title, n in networks.items()}
            draw_lanes(frames, lanes, folder / file)
        write_pictures(pictures, folder)


def _as_deployed(model: nn.Module, *images: Any) -> object:
    """The outputs that inference uses, in evaluation mode; in training mode also the auxiliary branch's."""
    network = _lane_network(model)
    before = network.use_aux
    network.use_aux = before and network.training
    try:
        return network(*images)
    finally:
        network.use_aux = before


def _lane_network(model: nn.Module) -> LaneNetwork:
    if not isinstance(model, LaneNetwork):
        raise TypeError(f"expected a LaneNetwork, got {type(model).__name__}")
    return model


def _fact(frame: Frame) -> tuple[object, ...]:
    lanes = [lane.tolist() for lane in frame.lanes]
    return frame.raw_file, frame.rows.tolist(), lanes, file_fact(frame.image)


def _label_files(root: Path, split: str, names: Sequence[str]) -> list[Path]:
    """The label files of a split, from names or patterns below ``root``, or from paths."""
    if not root.is_dir():
        raise InputError(
            f"data.root is {str(root)!r}, which is no folder; give the one that holds TuSimple's label files "
            "and the folder clips"
        )
    files: list[Path] = []
    for name in names:
        own = Path(name).expanduser()
        found = [own] if own.is_absolute() or own.is_file() else sorted(root.glob(name))
        if not found:
            raise InputError(
                f"data.{split}: {name!r} is no file below {root}; give label files such as "
                "label_data_0313.json or test_label.json"
            )
        files += found
    return files


def _spread(frames: list[Frame], limit: int) -> list[Frame]:
    """``limit`` frames, spread evenly over all, because neighbours in a label file often belong to one drive."""
    if limit >= len(frames):
        return frames
    return [frames[i] for i in np.linspace(0, len(frames) - 1, limit).round().astype(int)]
