"""The stages of a run, the same for every task:

dense baseline → constrained training → hard pruning → masked retraining → final → proof → report.

Where whole channels are pruned, they are removed after hard pruning (``shrinking.py``), and the small network is
retrained, without masks.

Every stage writes its weights to ``checkpoints/`` and its result to ``progress.json``. A run that is resumed
loads finished stages from there; within a stage, the task's trainer resumes.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from detprune.channels import ChannelPlan, CoupledChannels
from detprune.errors import DetpruneError, InputError, NonFiniteError
from detprune.files import file_digest, load_tensors
from detprune.layers import select_layers
from detprune.loggers import logger
from detprune.methods import OneShot, name_of
from detprune.networks.finite import check_finite
from detprune.pruner import Pruner
from detprune.run.beginning import check_beginning
from detprune.run.directory import RunDirectory, is_main_process
from detprune.run.events import StageEnd
from detprune.run.latency.runs import latency_result, prepare_latency
from detprune.run.measuring.runs import measure_run
from detprune.run.recipe import Recipe
from detprune.run.records import SUMMARY, Stage, StageResult, Summary, Verified
from detprune.run.shrinking import outputs_differ_by, removal_record, shrunk_summary
from detprune.run.summarizing import summarize_run
from detprune.run.task import Task, plain_state_dict, starting_network
from detprune.sets import Unstructured
from detprune.summary import Summary as Counts
from detprune.summary import summarize

LOGGER = logger(__name__)

_HIGH_RATE = 8  # least compression for the advice; measured at 8× on a detector, 20× on CIFAR-10 (docs/results.md)


class VerificationError(DetpruneError):
    """The saved model differs from the summary."""


def run_stages(task: Task, recipe: Recipe, run: RunDirectory, command: str) -> Summary | None:
    """Run all stages that are not finished yet; write the summary, and return it.

    In a distributed run every rank calls it; only the first one verifies and writes, and the others get None.

    Raises:
        InputError: anything in the recipe that does not fit model or data, before training.
        NonFiniteError: training diverged.
        VerificationError: the file on disk does not give the summary's numbers.
    """
    edited = check_beginning(recipe, run, task.data_facts)
    stages = _Stages(task, recipe, run)
    model = starting_network(task)
    prepare_latency(task, model)
    plan = _plan(task, model)
    LOGGER.debug("%s", plan)
    if is_main_process():
        Console(markup=False).print(plan.table())
        for note in task.plan_notes(model):
            LOGGER.info("%s", note)
        _advise(recipe)
    if "final" not in run.finished():
        task.check_before_training(model)
    if "hard_pruned" not in run.finished():
        _rehearse(task, recipe, model)

    stages.dense(model)
    pruner = stages.constrained(model)
    network = stages.remove(model, pruner)
    stages.retrain(network, pruner if network is model else None)

    if not is_main_process():
        return None
    counts = pruner.summary() if network is model else shrunk_summary(model, network)
    summary = summarize_run(task, recipe, run, model, counts, command)
    removal, latency = None, None
    if network is not model:
        removal = removal_record(task, model, network, run.finished()["removed"])
    verified = _verify(task, run, summary, counts)
    if network is not model:
        task.write_program(network)
        latency = latency_result(task, model, network)
    measured = measure_run(task) if recipe.measure else None
    found = {"removal": removal, "latency": latency, "verified": verified, "measured": measured}
    timed = [] if latency is None else [str(latency)]
    summary = summary.model_copy(update={**found, "notes": (*summary.notes, *edited, *timed)})
    run.check_there()
    run.write_json(SUMMARY, summary.as_dict())
    task.illustrate()
    return summary


def _plan(task: Task, model: nn.Module) -> Counts | ChannelPlan:
    """The plan of what will be pruned, before training; it checks all weights to be pruned."""
    chosen, budget = task.sparsity_set(model), task.budget(model)
    if isinstance(chosen, CoupledChannels):
        return chosen.plan(model, budget)
    return summarize(model, select_layers(model, chosen, budget, optimizer=None))


def _rehearse(task: Task, recipe: Recipe, model: nn.Module) -> None:
    """Start constrained training without a step, so that what it refuses is found before the dense stage.

    Raises:
        InputError: what does not go together in method, set, budget, optimizer and network.
    """
    epochs = task.epochs["constrained"]
    if not epochs:
        return
    Pruner(
        model,
        task.constrained_optimizer(model),
        recipe.method,
        task.sparsity_set(model),
        task.budget(model),
        steps_per_update=1,  # any number will do; it only has to be known
        updates=epochs,
    ).detach()


def _advise(recipe: Recipe) -> None:
    """Advise another allocation if a high rate is spread evenly over the layers."""
    budget = recipe.budget
    evenly = budget.scope == "layer" and budget.allocation == "uniform"
    high = (budget.pruned_share or 0) >= 1 - 1 / _HIGH_RATE
    if evenly and high and isinstance(recipe.set, Unstructured):
        LOGGER.info(
            "every layer gets the same sparsity; at such a rate budget.allocation: erk kept more accuracy in our trials"
        )


@contextmanager
def _naming(stage: str) -> Iterator[None]:
    """Name the stage in which training diverged."""
    try:
        yield
    except NonFiniteError as error:
        raise NonFiniteError(f"in the stage {stage}: {error}") from error


class _Stages:
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


def _verify(task: Task, run: RunDirectory, summary: Summary, counts: Counts) -> Verified:
    """Load the saved file into a new model, count its zeros, measure it again."""
    with run.own_file():
        model = task.load_network(run.pruned)
    check_finite(model, f"the network in {run.pruned}")
    saved = dict(model.named_parameters())
    for layer in counts.layers:
        nonzero = int(torch.count_nonzero(saved[layer.name]))
        if nonzero != layer.nonzero:
            raise VerificationError(
                f"{run.pruned}: {layer.name} has {nonzero} nonzero weights on disk, and "
                f"{layer.nonzero} in the model that was saved"
            )
    metric = task.evaluate(model)[task.metric]
    if summary.final is None or abs(metric - summary.final) > 1e-6:
        raise VerificationError(
            f"{run.pruned}: loaded back, {task.metric} is {metric:.6f}, but the summary says {summary.final}"
        )
    nonzero = sum(int(torch.count_nonzero(saved[layer.name])) for layer in counts.pruned)
    LOGGER.info(
        "proved: %s loads, %d nonzero weights, %s %.4f", run.pruned, nonzero, task.metric, metric
    )
    return Verified(
        path=run.pruned.name, nonzero=nonzero, metric=metric, sha256=file_digest(run.pruned)
    )
