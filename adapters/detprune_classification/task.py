"""Classification as a task of the pipeline: Lightning trains, torchmetrics measures."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy

import lightning as L
from detprune.errors import InputError
from detprune.run.metrics import Metric
from detprune.run.recipe import Recipe
from detprune_classification.data import ImageData, build_data, images_facts
from detprune_classification.models import build_model, load_checkpoint
from detprune_classification.recipe import ClassificationRecipe
from detprune_lightning.distillation import Teacher
from detprune_lightning.spec import StageSpec
from detprune_lightning.task import (
    LightningNetworkTask,
    LightningTask,
    measuring,
    optimizer_and_schedule,
)
from detprune_lightning.training import METRIC_KEY, PlainErrorsLoader, train_loader


class Classifier(L.LightningModule):
    """A network with cross-entropy loss, and top-1 accuracy on the test images."""

    def __init__(
        self,
        network: nn.Module,
        spec: StageSpec,
        data: ImageData,
        recipe: ClassificationRecipe,
        teacher: Teacher | None,
    ) -> None:
        super().__init__()
        self.network, self.spec, self.data, self.recipe = network, spec, data, recipe
        self.teacher = teacher
        self.accuracy = MulticlassAccuracy(len(data.classes), average="micro")

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N, classes), of normalised images, (N, C, H, W)."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross entropy, mixed with the teacher's term if there is a teacher."""
        images, labels = batch
        logits = self(images)
        loss = cross_entropy(logits, labels, self.recipe)
        if self.teacher is not None:
            loss = self.teacher.mix(loss, logits, images)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count correct labels."""
        images, labels = batch
        self.accuracy(self(images), labels)
        self.log(METRIC_KEY, self.accuracy, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """The stage's optimizer and schedule."""
        return optimizer_and_schedule(self, self.network, self.spec)

    def train_dataloader(self) -> "DataLoader[Any]":
        """Training images, shuffled and augmented."""
        data = self.recipe.data
        return train_loader(
            self.data.train,
            self.trainer,
            batch_size=data.batch_size,
            workers=data.workers,
            seed=self.recipe.seed,
        )

    def val_dataloader(self) -> "DataLoader[Any]":
        """Test images."""
        return test_loader(self.data, self.recipe)


def cross_entropy(logits: Tensor, labels: Tensor, recipe: ClassificationRecipe) -> Tensor:
    """Mean cross entropy, smoothed as the recipe says."""
    return nn.functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)


def test_loader(data: ImageData, recipe: ClassificationRecipe) -> "DataLoader[Any]":
    """Loader of the test images in order; it has its own generator, so that no other random state changes."""
    return PlainErrorsLoader(
        data.test,
        batch_size=2 * recipe.data.batch_size,
        num_workers=recipe.data.workers,
        generator=torch.Generator().manual_seed(0),
    )


class ClassificationNetworkTask(LightningNetworkTask):
    """Builds and measures an image classifier."""

    metrics: ClassVar[tuple[Metric, ...]] = (Metric("accuracy"),)
    recipe_type: ClassVar[type[Recipe]] = ClassificationRecipe
    recipe: ClassificationRecipe

    @cached_property
    def data(self) -> ImageData:
        """The images, read once."""
        spec = self.recipe.data
        return build_data(
            spec.name,
            spec.root,
            image_size=spec.image_size,
            augment=spec.augment,
            train_limit=spec.train_limit,
            test_limit=spec.test_limit,
            seed=self.recipe.seed,
        )

    @property
    def training_data(self) -> Dataset[Any]:
        """Augmented training images with their labels."""
        return self.data.train

    @property
    def model_name(self) -> str:
        """The network's name."""
        return self.recipe.model.name

    @property
    def data_name(self) -> str:
        """The data set's name, and the folder's where it is a folder of images."""
        spec = self.recipe.data
        folder = f" ({spec.root.name})" if spec.name == "image_folder" and spec.root else ""
        return f"{spec.name}{folder}, {len(self.data.train):,} training images"  # type: ignore[arg-type]

    def data_facts(self) -> Mapping[str, str]:
        """The classes, and number and digests of the images with their labels."""
        data = self.data
        parts = {"training images": data.train, "test images": data.test}
        found = {"classes": ", ".join(map(str, data.classes))}
        for what, part in parts.items():
            found |= images_facts(what, part)
        return found

    def build_model(self) -> nn.Module:
        """The network, with initial weights from the seed unless the recipe names weights."""
        L.seed_everything(self.recipe.seed, verbose=False)
        spec = self.recipe.model
        network = build_model(
            spec.name, len(self.data.classes), in_channels=self.data.channels, weights=spec.weights
        )
        size = getattr(network, "image_size", None)  # vision transformers have one position a patch
        if size not in (None, self.data.image_size):
            raise InputError(
                f"{spec.name} takes images of {size} px alone, but they have {self.data.image_size}; set "
                f"data.image_size to {size}, or take another network"
            )
        return network

    def describe_network(self) -> dict[str, Any]:
        """Name, classes and channels of the input."""
        return {
            "name": self.recipe.model.name,
            "num_classes": len(self.data.classes),
            "in_channels": self.data.channels,
        }

    def loss(self, model: nn.Module, batch: Sequence[Tensor]) -> Tensor:
        """Cross entropy."""
        images, labels = batch
        return cross_entropy(model(images), labels, self.recipe)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """Top-1 accuracy in float32."""
        return {self.metric: accuracy(model, self.data, self.recipe)}

    def load_weights(self, model: nn.Module, path: Path) -> None:
        """Load a checkpoint of the same network."""
        load_checkpoint(model, path)


class ClassificationTask(ClassificationNetworkTask, LightningTask):
    """Prunes an image classifier."""

    @property
    def batch_size(self) -> int:
        """Images in a training batch."""
        return self.recipe.data.batch_size

    def module(
        self, model: nn.Module, spec: StageSpec, teacher: Teacher | None
    ) -> L.LightningModule:
        """The LightningModule of the classifier."""
        return Classifier(model, spec, self.data, self.recipe, teacher)


def accuracy(model: nn.Module, data: ImageData, recipe: ClassificationRecipe) -> float:
    """Share of test images whose label has the largest logit; the model does not change."""
    # every rank of a distributed run measures all images, so that there is nothing to gather
    metric = MulticlassAccuracy(len(data.classes), average="micro", sync_on_compute=False)
    with measuring(model, recipe.trainer) as device:
        metric.to(device)
        for images, labels in test_loader(data, recipe):
            metric.update(model(images.to(device)), labels.to(device))
    return float(metric.compute())
