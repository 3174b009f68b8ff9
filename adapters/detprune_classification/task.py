"""Classification as a task of the pipeline: Lightning trains, torchmetrics measures."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

import lightning as L
from detprune.errors import InputError
from detprune.methods import OneShot, OuterIteration
from detprune.pruner import Pruner
from detprune.recipe import Recipe
from detprune.rundir import RunDirectory
from detprune.task import Task
from detprune_classification.data import ImageData, build_data
from detprune_classification.models import build_model, load_checkpoint
from detprune_classification.recipe import ClassificationRecipe
from detprune_lightning.callbacks import ConstrainedTraining, HardPruningCheck, MaskedRetraining
from detprune_lightning.spec import StageSpec
from detprune_lightning.training import METRIC_KEY, fit, train_loader


class Classifier(L.LightningModule):
    """A network with cross-entropy loss, and top-1 accuracy on the test images."""

    def __init__(
        self, network: nn.Module, spec: StageSpec, data: ImageData, recipe: ClassificationRecipe
    ) -> None:
        super().__init__()
        self.network, self.spec, self.data, self.recipe = network, spec, data, recipe
        self.accuracy = MulticlassAccuracy(len(data.classes), average="micro")

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N, classes), of normalised images, (N, C, H, W)."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross entropy."""
        images, labels = batch
        smoothing = self.spec.label_smoothing
        loss = nn.functional.cross_entropy(self(images), labels, label_smoothing=smoothing)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count correct labels."""
        images, labels = batch
        self.accuracy(self(images), labels)
        self.log(METRIC_KEY, self.accuracy, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """The stage's optimizer and schedule."""
        optimizer = self.spec.optimizer.build(self.network)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = self.spec.build_schedule(optimizer, steps)
        if schedule is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

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


def test_loader(data: ImageData, recipe: ClassificationRecipe) -> "DataLoader[Any]":
    """Test images in order; its own generator, so that no other random state moves."""
    return DataLoader(
        data.test,
        batch_size=2 * recipe.data.batch_size,
        num_workers=recipe.data.workers,
        generator=torch.Generator().manual_seed(0),
    )


class ClassificationTask(Task):
    """Prunes an image classifier."""

    metric: ClassVar[str] = "accuracy"

    def __init__(self, recipe: Recipe, run: RunDirectory) -> None:
        if not isinstance(recipe, ClassificationRecipe):
            raise InputError(f"the recipe is a {type(recipe).__name__}, not a ClassificationRecipe")
        super().__init__(recipe, run)
        self.recipe: ClassificationRecipe = recipe

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
    def model_name(self) -> str:
        """The network's name."""
        return self.recipe.model.name

    @property
    def data_name(self) -> str:
        """The data set's name, and the folder's where it is a folder of images."""
        spec = self.recipe.data
        folder = f" ({spec.root.name})" if spec.name == "image_folder" and spec.root else ""
        return f"{spec.name}{folder}, {len(self.data.train):,} training images"  # type: ignore[arg-type]

    @property
    def epochs(self) -> Mapping[str, int]:
        """Epochs of the three stages."""
        stages = self.recipe.stages
        dense = stages.dense.epochs if stages.dense else 0
        return {
            "dense": dense,
            "constrained": stages.constrained.epochs,
            "retrain": stages.retrain.epochs,
        }

    def build_model(self) -> nn.Module:
        """The network, with initial weights from the seed unless the recipe names weights."""
        L.seed_everything(self.recipe.seed, verbose=False)
        spec = self.recipe.model
        return build_model(
            spec.name, len(self.data.classes), in_channels=self.data.channels, weights=spec.weights
        )

    def train_dense(self, model: nn.Module) -> None:
        """Train the baseline."""
        if self.recipe.stages.dense is not None:
            self._fit("dense", self.recipe.stages.dense, model, [])

    def train_constrained(self, model: nn.Module) -> Pruner:
        """Constrained training, with the hard-pruning check."""
        spec = self.recipe.stages.constrained
        if spec.epochs == 0:
            return Pruner(model, None, OneShot(), self.recipe.set, self.recipe.budget)
        training = ConstrainedTraining(
            self.recipe.method,
            self.recipe.set,
            self.recipe.budget,
            every=spec.every,
            network=model,
            on_update=self._log_update,
        )
        check = HardPruningCheck(
            training,
            lambda network: accuracy(network, self.data, self.recipe),
            every=spec.check_every,
            stop_at=spec.stop_at,
            on_check=self._log_check,
        )
        self._fit("constrained", spec, model, [training, check])
        return training.pruner

    def retrain(self, model: nn.Module, pruner: Pruner) -> None:
        """Train with masks."""
        self._fit("retrain", self.recipe.stages.retrain, model, [MaskedRetraining(pruner)])

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """Top-1 accuracy in float32."""
        return {self.metric: accuracy(model, self.data, self.recipe)}

    def load_weights(self, model: nn.Module, path: Path) -> None:
        """Load a checkpoint of the same network."""
        load_checkpoint(model, path)

    def _fit(
        self, stage: str, spec: StageSpec, model: nn.Module, callbacks: list[L.Callback]
    ) -> None:
        module = Classifier(model, spec, self.data, self.recipe)
        fit(
            module,
            stage=stage,
            spec=spec,
            trainer=self.recipe.trainer,
            run=self.run,
            seed=self.recipe.seed,
            callbacks=callbacks,
        )

    def _log_update(self, entry: OuterIteration, epoch: int) -> None:
        self.run.log_event("outer", stage="constrained", epoch=epoch, **vars(entry))

    def _log_check(self, value: float, epoch: int) -> None:
        self.run.log_event("hard_prune_check", stage="constrained", epoch=epoch, metric=value)


@torch.no_grad()
def accuracy(model: nn.Module, data: ImageData, recipe: ClassificationRecipe) -> float:
    """Share of test images whose label has the largest logit; the model is left as it was."""
    before = next(model.parameters()).device
    wants_gpu = recipe.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    device = torch.device("cuda") if wants_gpu and before.type == "cpu" else before
    modes = {module: module.training for module in model.modules()}
    model.to(device).eval()
    # every rank of a distributed run sees all images, so that there is nothing to gather
    metric = MulticlassAccuracy(len(data.classes), average="micro", sync_on_compute=False).to(
        device
    )
    for images, labels in test_loader(data, recipe):
        metric.update(model(images.to(device)), labels.to(device))
    model.to(before)
    for module, training in modes.items():
        module.training = training
    return float(metric.compute())
