"""The fit of one stage of a recipe with Lightning, which can be resumed exactly after a kill at any moment.

A checkpoint is written at the end of every epoch. All randomness of an epoch is a function of
(seed, stage, epoch), so that an epoch that is run again after a kill is equal bit for bit.
"""

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import lightning as L
from detprune.errors import DetpruneError, InputError
from detprune.loggers import logger
from detprune.run.directory import RunDirectory
from detprune.run.events import Epoch
from detprune.run.seeds import derive_seed
from detprune_lightning.checkpoints import AtomicCheckpoints
from detprune_lightning.spec import StageSpec, TrainerSpec
from detprune_lightning.trainer_facts import check_processes

LOGGER = logger(__name__)

THIRD_PARTY_WARNINGS = (
    r".*isinstance\(treespec, LeafSpec\)",  # Lightning 2.6 on torch 2.15 warns of its own internals
    r".*does not have many workers",  # with images in memory, workers cost more than they save
    r".*smaller than the logging interval",
    r"Checkpoint directory .* exists and is not empty",  # a run that is resumed
    r"The dirpath has changed",  # a run directory that was moved, then resumed
)

_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
"""As Lightning spells them; in others it converts the network, and leaves it so after a stage."""

METRIC_KEY = "metric"
"""Key under which a module logs the metric of its test data."""


def check_trainer(spec: TrainerSpec) -> None:
    """Check the options for Lightning's Trainer, before anything is read or trained.

    Raises:
        InputError: Lightning refuses it, or this machine has no such device.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    given = spec.model_dump(exclude={"progress_bar", "channels_last", "deterministic"})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            built = L.Trainer(
                **given, logger=False, enable_checkpointing=False, enable_progress_bar=False
            )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError) as error:
        if str(error).startswith("Precision "):  # Lightning lists some that are refused below
            raise InputError(
                f"trainer.precision is {spec.precision!r}; allowed are {', '.join(_PRECISIONS)}"
            ) from error
        stated = {k: given[k] for k in ("accelerator", "devices", "strategy", "precision")}
        raise InputError(f"Lightning refuses trainer: {stated}: {error}") from error
    if built.precision not in _PRECISIONS:
        raise InputError(
            f"trainer.precision is {spec.precision!r}, in which the weights themselves are not float32, as all that "
            f"is measured and saved is; allowed are {', '.join(_PRECISIONS)}"
        )
    try:
        check_processes(built.strategy)
    except InputError as error:
        raise InputError(f"trainer.strategy is {spec.strategy!r}: {error}") from error
    most = max(2, os.cpu_count() or 1)  # two processes can be tried on any machine
    if isinstance(built.accelerator, CPUAccelerator) and built.num_devices > most:
        raise InputError(
            f"trainer.devices is {spec.devices!r}, which on a CPU is that many processes; allowed are up to "
            f"{most} on this machine"
        )


def _cluster() -> list[SLURMEnvironment]:
    """SLURM without Lightning's own answer to SIGUSR1: it queues the job again, and saves where no stage goes on."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def fit(
    module: L.LightningModule,
    *,
    stage: str,
    spec: StageSpec,
    trainer: TrainerSpec,
    run: RunDirectory,
    seed: int,
    callbacks: list[L.Callback] | None = None,
) -> L.Trainer:
    """Train ``module`` for a stage, from its last checkpoint if there is one.

    Args:
        module: logs ``train_loss`` and ``metric`` per epoch.
        stage: ``"dense"``, ``"constrained"`` or ``"retrain"``: names its events and checkpoints.
        spec: length and evaluations.
        trainer: options of Lightning's Trainer.
        run: run directory for events, checkpoints and TensorBoard files.
        seed: seed of data order and augmentation.
        callbacks: called before the checkpoint is written.
    """
    # hide Lightning's start-up lines, tips and advertisements; warnings and errors still show
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    folder = run.checkpoints / stage
    show_bar = trainer.progress_bar and sys.stdout.isatty()
    own: list[L.Callback] = [SeedEveryEpoch(seed, stage), *(callbacks or []), EventLog(run, stage)]
    lightning_trainer = L.Trainer(
        max_epochs=spec.epochs,
        check_val_every_n_epoch=spec.evaluate_every,
        default_root_dir=folder,  # where it looks for checkpoints of its own, to go on from them
        logger=TensorBoardLogger(run.path, name="tensorboard", version=stage),
        callbacks=[
            *own,
            ModelCheckpoint(
                folder,
                filename="last",
                save_top_k=1,
                every_n_epochs=1,
                save_on_train_epoch_end=True,
                enable_version_counter=False,
            ),
            *([RichProgressBar(leave=False)] if show_bar else []),
        ],
        enable_progress_bar=show_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        plugins=[AtomicCheckpoints(module, stage, own), *_cluster()],
        **trainer.model_dump(exclude={"progress_bar", "channels_last"}),
    )
    if trainer.channels_last:
        module.to(memory_format=torch.channels_last)
    last = folder / "last.ckpt"
    if os.path.lexists(last):
        LOGGER.info("%s: resuming from %s", stage, last)
    with warnings.catch_warnings():
        for message in THIRD_PARTY_WARNINGS:
            warnings.filterwarnings("ignore", message)
        checkpoint = str(last) if os.path.lexists(last) else None
        lightning_trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
    module.to(memory_format=torch.contiguous_format)
    return lightning_trainer


def train_loader(
    data: Dataset[Any], trainer: L.Trainer, *, batch_size: int, workers: int, seed: int
) -> "DataLoader[Any]":
    """A loader whose order and worker seeds depend on (seed, epoch) alone, split over the ranks."""
    sampler: DistributedSampler[Any] = DistributedSampler(
        data, trainer.world_size, trainer.global_rank, shuffle=True, seed=seed
    )
    return _EpochSeededLoader(
        data,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        pin_memory=trainer.strategy.root_device.type == "cuda",
        generator=torch.Generator(),
    )


class PlainErrorsLoader(DataLoader[Any]):
    """A DataLoader that raises an error of a worker as the worker raised it.

    torch's puts the worker's traceback into the text of the error.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return _with_plain_errors(super().__iter__())


def _with_plain_errors(batches: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from batches
    except DetpruneError as error:
        kind = type(error)
        _, found, text = str(error).rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")
        if not found:
            raise
        raise kind(text.strip()) from error


class _EpochSeededLoader(PlainErrorsLoader):
    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        sampler, generator = self.sampler, self.generator
        if isinstance(sampler, DistributedSampler) and generator is not None:
            generator.manual_seed(derive_seed(sampler.seed, "workers", sampler.epoch, sampler.rank))
        return super().__iter__()


class SeedEveryEpoch(L.Callback):
    """Seeds all random generators from (seed, stage, epoch, rank) when an epoch begins."""

    def __init__(self, seed: int, stage: str) -> None:
        self._seed, self._stage = seed, stage

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Seed torch, numpy and random."""
        seed = derive_seed(self._seed, self._stage, trainer.current_epoch, trainer.global_rank)
        L.seed_everything(seed, verbose=False)


class EventLog(L.Callback):
    """One line per epoch in ``metrics.jsonl`` and in the log."""

    def __init__(self, run: RunDirectory, stage: str) -> None:
        self._run, self._stage = run, stage
        self._epoch = 0
        self._began = 0.0
        self._lr = 0.0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove the log lines written after the checkpoint that is resumed."""
        self._run.rewind(self._stage, self._epoch)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that Lightning restored all parts of a checkpoint that is resumed.

        Lightning restores the parts that it finds, and starts the others from zero.

        Raises:
            InputError: parts are missing, or belong to different epochs.
        """
        if trainer.ckpt_path is None:
            return
        lacking = []
        if trainer.current_epoch != self._epoch:
            lacking.append(
                f"epoch {self._epoch} in its loops, which stand at {trainer.current_epoch}"
            )
        if trainer.global_step:
            if any(
                _remembers(optimizer) and not optimizer.state for optimizer in trainer.optimizers
            ):
                lacking.append("the optimizer's momentum")
            if any(config.scheduler.last_epoch == 0 for config in trainer.lr_scheduler_configs):
                lacking.append("where the learning-rate schedule stands")
        if lacking:
            raise InputError(f"{trainer.ckpt_path} lacks {', '.join(lacking)}; {_way_out(trainer)}")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._began = time.perf_counter()
        self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the line of the epoch."""
        self._epoch = trainer.current_epoch + 1
        seconds = time.perf_counter() - self._began
        loss = _number(trainer.callback_metrics.get("train_loss"))
        validated = self._epoch % (trainer.check_val_every_n_epoch or 1) == 0
        metric = _number(trainer.callback_metrics.get(METRIC_KEY)) if validated else None
        event = Epoch(
            stage=self._stage,
            epoch=self._epoch,
            epochs=trainer.max_epochs,
            train_loss=loss,
            lr=self._lr,
            metric=metric,
            seconds=round(seconds, 3),
        )
        self._run.log(event)
        LOGGER.info(
            "%s %d/%s  loss %s  metric %s  %.1f s",
            self._stage,
            self._epoch,
            trainer.max_epochs,
            "-" if loss is None else f"{loss:.4f}",
            "-" if metric is None else f"{metric:.4f}",
            seconds,
        )

    def state_dict(self) -> dict[str, Any]:
        """The last epoch that was logged."""
        return {"epoch": self._epoch, "stage": self._stage}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after the last epoch that was logged.

        Raises:
            InputError: it is no number of epochs.
        """
        epoch = state_dict.get("epoch")
        if type(epoch) is not int or epoch < 0:
            raise InputError(
                f"last.ckpt of the stage {self._stage} says epoch {epoch!r}, allowed is a whole number, 0 or "
                f"more; delete {self._run.checkpoints / self._stage} and resume, to train this stage again"
            )
        self._epoch = epoch


def _remembers(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer keeps a state (momentum, averages) once it has taken a step."""
    return any(group.get("momentum") or group.get("betas") for group in optimizer.param_groups)


def _way_out(trainer: L.Trainer) -> str:
    return f"delete {Path(str(trainer.ckpt_path)).parent} and resume, to train this stage again"


def _number(value: torch.Tensor | None) -> float | None:
    return None if value is None else float(value)
