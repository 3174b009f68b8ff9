"""The stages of a run, the same for every task:

dense baseline → constrained training → hard pruning → masked retraining → final → proof → report.

What each stage trains and leaves is in ``stages.py``. Where whole channels are pruned, they are removed after hard
pruning (``shrinking.py``), and the small network is retrained, without masks.
"""

import torch
from rich.console import Console
from torch import nn

from detprune.channels import ChannelPlan, CoupledChannels
from detprune.errors import DetpruneError
from detprune.files import file_digest
from detprune.layers import select_layers
from detprune.loggers import logger
from detprune.networks.finite import check_finite
from detprune.pruner import Pruner
from detprune.run.beginning import check_beginning
from detprune.run.directory import RunDirectory, is_main_process
from detprune.run.latency.runs import latency_result, prepare_latency
from detprune.run.measuring.runs import measure_run
from detprune.run.recipe import Recipe
from detprune.run.records import SUMMARY, Summary, Verified
from detprune.run.shrinking import removal_record, shrunk_summary
from detprune.run.stages import Stages
from detprune.run.summarizing import summarize_run
from detprune.run.task import Task, starting_network
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
    stages = Stages(task, recipe, run)
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
