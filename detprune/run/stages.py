"""The stages of a run: what each trains, and what it leaves.

Every stage writes its weights to ``checkpoints/`` and its result to ``progress.json``. A run that is resumed
loads finished stages from there; within a stage, the task's trainer resumes.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from detprune.channels import CoupledChannels
from detprune.errors import InputError, NonFiniteError
from detprune.files import load_tensors
from detprune.loggers import logger
from detprune.methods import OneShot, name_of
from detprune.networks.finite import check_finite
from detprune.pruner import Pruner
from detprune.run.directory import RunDirectory
from detprune.run.events import StageEnd
from detprune.run.recipe import Recipe
from detprune.run.records import Stage, StageResult
from detprune.run.shrinking import outputs_differ_by
from detprune.run.task import Task, plain_state_dict

LOGGER = logger(__name__)


@contextmanager
def _naming(stage: str) -> Iterator[None]:
    """Name the stage in which training diverged."""
    try:
        yield
    except NonFiniteError as error:
        raise NonFiniteError(f"in the stage {stage}: {error}") from error


class Stages:
    """The stages of a run by name; each trains and saves the network, or loads it where the stage is finished."""

    def __init__(self, task: Task, recipe: Recipe, run: RunDirectory) -> None:
        self.task, self.recipe, self.run = task, recipe, run
        self.finished = run.finished()

    def dense(self, model: nn.Module) -> None:
        if self._take_up("dense", model):
            return
        began = time.perf_counter()
        if self.task.epochs["dense"]:
            LOGGER.info("dense baseline: %d epochs", self.task.epochs["dense"])
            with _naming("dense"):
                self.task.train_dense(model)
        self._finish("dense", model, time.perf_counter() - began)

    def constrained(self, model: nn.Module) -> Pruner:
        if self._take_up("hard_pruned", model):
            chosen, budget = self.task.sparsity_set(model), self.task.budget(model)
            pruner = Pruner(model, None, OneShot(), chosen, budget)
            file = self.run.checkpoints / "pruner.pt"
            way_out = self.run.way_out
            state = load_tensors(file, way_out)
            with self._keeping_zeros("hard_pruned", model):
                try:
                    pruner.load_state_dict(state)
                except (InputError, LookupError, TypeError, AttributeError, ValueError) as error:
                    raise InputError(
                        f"{file} does not fit the network: {error}; {way_out}"
                    ) from error
            return pruner
        epochs = self.task.epochs["constrained"]
        LOGGER.info("constrained training: %d epochs of %r", epochs, self.recipe.method)
        began = time.perf_counter()
        with _naming("constrained"):
            pruner = self.task.train_constrained(model)
        pruner.detach()
        if epochs and pruner.method.needs_updates and not pruner.history:
            LOGGER.warning(
                "constrained training ended before the first outer iteration of %s did, so that Z and the multipliers "
                "are those of the beginning, and what is pruned is near to what magnitude alone takes; give "
                "stages.constrained more epochs, or the method fewer inner_steps",
                pruner.method.title or name_of(pruner.method),
            )
        check_finite(model, "the network after the stage constrained")
        pruner.hard_prune()
        images = self.task.finish_hard_pruning(model)
        if images:
            LOGGER.info("batch norm: statistics estimated anew from %d training images", images)
        self.run.save(self.run.checkpoints / "pruner.pt", pruner.state_dict())
        seconds = time.perf_counter() - began
        self._finish("hard_pruned", model, seconds, batch_norm_images=images)
        return pruner

    def remove(self, model: nn.Module, pruner: Pruner) -> nn.Module:
        """Remove the channels that are zero, where whole channels are pruned; else return the same model."""
        chosen = self.task.sparsity_set(model)
        if not isinstance(chosen, CoupledChannels):
            return model
        began = time.perf_counter()
        network = pruner.shrink()
        self.task.finish_shrinking(network)
        if "removed" not in self.finished:
            difference = outputs_differ_by(model, network, chosen)
            seconds = time.perf_counter() - began
            self._finish("removed", network, seconds, difference=difference)
        return network

    def retrain(self, model: nn.Module, pruner: Pruner | None) -> None:
        if self._take_up("final", model):
            if pruner is not None:
                with self._keeping_zeros("final", model):
                    pruner.zero_masked(model)
            return
        began = time.perf_counter()
        if self.task.epochs["retrain"]:
            kind = "retraining of the small network" if pruner is None else "masked retraining"
            LOGGER.info("%s: %d epochs", kind, self.task.epochs["retrain"])
            with _naming("retrain"):
                self.task.retrain(model, pruner)
            if pruner is not None:
                pruner.detach()
        else:
            self.task.round_as_saved(model)
        check_finite(model, "the network after the stage retrain")
        self.run.save(self.run.pruned, self.task.pruned_file(model, pruner))
        self._finish("final", model, time.perf_counter() - began)

    @contextmanager
    def _keeping_zeros(self, stage: Stage, model: nn.Module) -> Iterator[None]:
        """Refuse the file of a stage if the block, which puts zeros where this run pruned, changes its network."""
        before = _nonzero(model)
        yield
        if (more := before - _nonzero(model)) > 0:
            raise InputError(
                f"{self._file(stage)} is not of the network that this run pruned: {more} weights that are pruned by "
                f"{self.run.checkpoints / 'pruner.pt'} are not zero in it; {self.run.way_out}"
            )

    def _file(self, stage: Stage) -> Path:
        return self.run.checkpoints / f"{stage}.pt"

    def _take_up(self, stage: Stage, model: nn.Module) -> bool:
        if stage not in self.finished:
            return False
        with self.run.own_file():
            self.task.load_weights(model, self._file(stage))
        check_finite(model, f"the network in {self._file(stage)}, after the stage {stage}")
        LOGGER.info("%s: loaded from %s", stage, self._file(stage))
        return True

    def _finish(
        self,
        stage: Stage,
        model: nn.Module,
        seconds: float,
        *,
        difference: float | None = None,
        batch_norm_images: int | None = None,
    ) -> None:
        check_finite(model, f"the network after the stage {stage}")
        metrics = dict(self.task.evaluate(model))
        metric = metrics[self.task.metric]
        self.run.save(self._file(stage), plain_state_dict(model))
        self.run.log(StageEnd(stage=stage, metric=metric))
        result = StageResult(
            metric=metric,
            metrics=metrics,
            seconds=round(seconds, 3),
            difference=difference,
            batch_norm_images=batch_norm_images,
        )
        self.run.finish(stage, result)
        LOGGER.info("%s: %s %.4f", stage, self.task.metric, metric)


def _nonzero(model: nn.Module) -> int:
    return sum(int(weight.count_nonzero()) for weight in model.parameters())
