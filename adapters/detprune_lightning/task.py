"""The stages of a run as Lightning fits; a subclass adds its LightningModule and its metric."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, Subset

import lightning as L
from detprune.channels import Forward
from detprune.channels.coupled import call
from detprune.errors import InputError
from detprune.files.atomic import atomic
from detprune.loggers import logger
from detprune.methods import OneShot, OuterIteration
from detprune.networks.batch_norm import estimate_statistics, even_batches
from detprune.pruner import Pruner
from detprune.run.directory import RunDirectory
from detprune.run.events import HardPruneCheck, Outer
from detprune.run.measuring import deployed
from detprune.run.recipe import Recipe
from detprune.run.seeds import derive_seed
from detprune.run.task import NetworkTask, Task, check_teacher
from detprune_lightning.batch_norm import check_single_sample
from detprune_lightning.callbacks import HardPruningCheck, MaskedRetraining
from detprune_lightning.constrained import ConstrainedTraining
from detprune_lightning.distillation import Teacher
from detprune_lightning.recipe import LightningRecipe
from detprune_lightning.spec import StageSpec, TrainerSpec
from detprune_lightning.training import check_trainer, fit

LOGGER = logger(__name__)

_BATCH = 64  # images at a time; batch-norm statistics are the mean over such batches


class LightningNetworkTask(NetworkTask):
    """A network whose training samples are tuples that begin with an image."""

    recipe: LightningRecipe

    @abstractmethod
    def loss(self, model: nn.Module, batch: Sequence[Tensor]) -> Tensor:
        """The loss of the deployed outputs (without auxiliary branches), on a batch of training samples."""

    @property
    @abstractmethod
    def training_data(self) -> Dataset[Any]:
        """Training samples, each a tuple that begins with the image."""

    @property
    def notes(self) -> Sequence[str]:
        """The note on distillation, if there is a teacher."""
        spec = self.recipe.distillation
        if spec is None:
            return ()
        return (
            f"Constrained training and masked retraining learn from {spec.teacher or 'the dense network'} too: "
            f"weight {spec.weight:g}, temperature {spec.temperature:g}.",
        )

    def example_inputs(self, model: nn.Module) -> tuple[Sequence[object], Forward]:
        """One training image, for its size, and how the network is called with it."""
        return (torch.zeros(1, *self._image_shape),), call

    @cached_property
    def _image_shape(self) -> torch.Size:
        with isolate_rng():  # images are augmented
            shape: torch.Size = self.training_data[0][0].shape
        return shape

    def estimate_batch_norm(self, model: nn.Module) -> int:
        """Estimate the statistics on augmented training images, taken evenly from the whole set."""
        batches = self._samples(self.recipe.batch_norm_images)
        with isolate_rng(), measuring(model, self.recipe.trainer) as device:
            estimate_statistics(model, (batch[0].to(device) for batch in batches))
        return sum(len(batch[0]) for batch in batches)

    def loss_probe(self, model: nn.Module, images: int) -> Callable[[], float]:
        """A function that gives the loss on fixed, augmented training images, taken evenly from the whole set."""
        batches = self._samples(images)

        def measure() -> float:
            total = 0.0
            with measuring(model, self.recipe.trainer) as device:
                for batch in batches:
                    loss = self.loss(model, [part.to(device) for part in batch])
                    total += float(loss) * len(batch[0])
            return total / sum(len(batch[0]) for batch in batches)

        return measure

    def _samples(self, count: int) -> list[Sequence[Tensor]]:
        """Batches of training samples."""
        data = self.training_data
        total = len(data)  # type: ignore[arg-type]
        count = min(count, total)
        images: Subset[Any] = Subset(data, [i * total // count for i in range(count)])
        with isolate_rng():
            L.seed_everything(derive_seed(self.recipe.seed, "samples"), verbose=False)
            return list(DataLoader(images, batch_sampler=even_batches(count, _BATCH)))


class LightningTask(LightningNetworkTask, Task):
    """A task whose stages are fits of one LightningModule."""

    def __init__(self, recipe: Recipe, run: RunDirectory) -> None:
        super().__init__(recipe, run)
        check_trainer(self.recipe.trainer)
        if self.recipe.distillation is not None:
            check_teacher(self.recipe.distillation.teacher)
        self._teacher: Teacher | None = None

    @abstractmethod
    def module(
        self, model: nn.Module, spec: StageSpec, teacher: Teacher | None
    ) -> L.LightningModule:
        """The LightningModule to fit: it logs ``train_loss`` and ``metric`` per epoch, and has its own loaders.

        Args:
            model: the network to train.
            spec: settings of the stage.
            teacher: mixes into the loss what the dense network says, if there is one.
        """

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
    def batch_size(self) -> int:
        """Samples in a training batch."""
        return 0

    def _check_single_samples(self, model: nn.Module) -> None:
        images, batch = len(self.training_data), self.batch_size  # type: ignore[arg-type]
        alone = self.recipe.trainer.devices in (1, "1", "auto") and torch.cuda.device_count() < 2
        if alone and batch and images % batch == (1 if batch > 1 else 0):
            cause = f"data.batch_size is {batch}, so that the last batch of {images} training images has one"
        elif min(self.recipe.batch_norm_images, images) == 1:
            cause = "batch_norm_images is 1"
        else:
            return
        check_single_sample(model, self._image_shape, cause)

    def check_before_training(self, model: nn.Module) -> None:
        """Check that batches can be trained on, and that the recipe's own teacher loads and holds finite numbers."""
        self._check_single_samples(model)
        spec = self.recipe.distillation
        if spec is None or spec.teacher is None:
            return
        teacher = self.build_model()
        try:
            self.load_weights(teacher, spec.teacher.expanduser())
        except InputError as error:
            raise InputError(f"distillation.teacher: {error}") from error
        bad = [name for name, p in teacher.named_parameters() if not bool(p.isfinite().all())]
        if bad:
            raise InputError(
                f"distillation.teacher: {spec.teacher} holds NaN or infinity in {len(bad)} weights, {bad[0]} "
                "first; give another checkpoint, or leave the key out, so that the dense network teaches"
            )

    def constrained_optimizer(self, model: nn.Module) -> Optimizer:
        """The optimizer of constrained training, as the recipe names it."""
        return self.recipe.stages.constrained.optimizer.build(model)

    def train_dense(self, model: nn.Module) -> None:
        """Train the dense baseline."""
        if self.recipe.stages.dense is not None:
            self._fit("dense", self.recipe.stages.dense, model, [])

    def train_constrained(self, model: nn.Module) -> Pruner:
        """Constrained training, with the hard-pruning check."""
        spec, budget = self.recipe.stages.constrained, self.budget(model)
        self._be_taught_by(model)
        if spec.epochs == 0:
            return Pruner(model, None, OneShot(), self.sparsity_set(model), budget)
        training = ConstrainedTraining(
            self.recipe.method,
            self.sparsity_set(model),
            budget,
            every=spec.every,
            network=model,
            batch_norm_images=0,  # the task estimates the statistics itself, wherever it measures
            on_update=self._log_update,
        )
        check = HardPruningCheck(
            training,
            self._measure_hard_pruned,
            every=spec.check_every,
            stop_at=spec.stop_at,
            on_check=self._log_check,
        )
        self._fit("constrained", spec, model, [training, check])
        return training.pruner

    def retrain(self, model: nn.Module, pruner: Pruner | None) -> None:
        """Train with masks, or a network from which channels were removed."""
        if (
            self._teacher is None and self.recipe.distillation is not None
        ):  # the run was resumed here
            dense = self.build_model()
            self.load_weights(dense, self.run.checkpoints / "dense.pt")
            self._be_taught_by(dense)
        callbacks: list[L.Callback] = [] if pruner is None else [MaskedRetraining(pruner)]
        self._fit("retrain", self.recipe.stages.retrain, model, callbacks)

    def write_program(self, network: nn.Module) -> None:
        """``pruned.pt2``: the network as it is deployed, for any number of images, through ``torch.export``."""
        plain = deployed(network).timed.eval()
        images = torch.zeros(2, *self._image_shape)
        try:
            with torch.no_grad(), isolate_rng():
                batch = torch.export.Dim("batch")
                program = torch.export.export(plain, (images,), dynamic_shapes=({0: batch},))
        except (RuntimeError, ValueError, TypeError, TorchDynamoException) as error:
            LOGGER.warning("pruned.pt2 was not written, torch.export fails: %s", error)
            return
        with atomic(self.run.path / "pruned.pt2") as temporary, temporary.open("wb") as file:
            torch.export.save(program, file)

    def _be_taught_by(self, dense: nn.Module) -> None:
        spec = self.recipe.distillation
        if spec is None:
            return
        if spec.teacher is not None:
            dense = self.build_model()
            self.load_weights(dense, spec.teacher.expanduser())
        channels_last = self.recipe.trainer.channels_last
        self._teacher = Teacher(dense, spec, channels_last=channels_last)

    def _measure_hard_pruned(self, network: nn.Module) -> float:
        self.renew_batch_norm(network)
        return self.evaluate(network)[self.metric]

    def _fit(
        self, stage: str, spec: StageSpec, model: nn.Module, callbacks: list[L.Callback]
    ) -> None:
        fit(
            self.module(model, spec, self._teacher),
            stage=stage,
            spec=spec,
            trainer=self.recipe.trainer,
            run=self.run,
            seed=self.recipe.seed,
            callbacks=callbacks,
        )

    def _log_update(self, entry: OuterIteration, epoch: int) -> None:
        self.run.log(Outer(**vars(entry), epoch=epoch))

    def _log_check(self, value: float, epoch: int) -> None:
        self.run.log(HardPruneCheck(epoch=epoch, metric=value))


def optimizer_and_schedule(module: L.LightningModule, network: nn.Module, spec: StageSpec) -> Any:
    """Optimizer and schedule of a stage, in the form that ``configure_optimizers`` returns."""
    optimizer = spec.optimizer.build(network)
    schedule = spec.build_schedule(optimizer, int(module.trainer.estimated_stepping_batches))
    if schedule is None:
        return optimizer
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@contextmanager
def measuring(model: nn.Module, trainer: TrainerSpec) -> Iterator[torch.device]:
    """Evaluation mode without gradients, on the GPU if the trainer would use one; restores mode and device."""
    before = next(model.parameters()).device
    wants_gpu = trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    device = torch.device("cuda") if wants_gpu and before.type == "cpu" else before
    modes = {module: module.training for module in model.modules()}
    model.to(device).eval()
    try:
        with torch.no_grad():
            yield device
    finally:
        model.to(before)
        for module, training in modes.items():
            module.training = training
