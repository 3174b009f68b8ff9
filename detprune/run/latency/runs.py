"""Latency budgets of runs: the table is measured when the run begins, and the result when it ends."""

import time
from pathlib import Path

import torch
from torch import nn

from detprune.channels import CoupledChannels
from detprune.channels.latency_table import read_table
from detprune.errors import DetpruneError, InputError
from detprune.latency_targets import LatencyTarget
from detprune.loggers import logger
from detprune.run.directory import is_main_process
from detprune.run.latency.choosing import measured_budget, write_table
from detprune.run.latency.profiling import Subject
from detprune.run.latency.timing import network_times
from detprune.run.measuring.deployment import deployed
from detprune.run.records import LatencyResult
from detprune.run.task import Task
from detprune.run.written import LATENCY_TABLE, NEW_TABLE

LOGGER = logger(__name__)

_WAIT = 1800.0  # seconds that other processes wait for the table of the first


def prepare_latency(task: Task, model: nn.Module) -> None:
    """Measure the times that a latency budget needs, once a run; the task's budget names the table then.

    Args:
        task: of the run; other budgets are left alone.
        model: the network before training.

    Raises:
        InputError: a set that removes no channels, a target that is not here, a latency out of reach, a table of
            another network.
    """
    stated = task.recipe.budget
    if stated.latency is None:
        return
    path = task.run.checkpoints / LATENCY_TABLE
    if not is_main_process():
        _wait_for(path)
    elif not _is_of_recipe(task, path):
        channels = task.sparsity_set(model)
        if not isinstance(channels, CoupledChannels):
            stated.check_single_weights()
            raise InputError("latency needs set: coupled_channels")
        scratch = path.with_name(NEW_TABLE)
        with torch.random.fork_rng(devices=[]):  # a run that is resumed measures nothing
            measured_budget(
                model, channels, task.budget(model), table=scratch, finish=task.finish_shrinking
            )
        write_table(read_table(scratch), path)  # only whole: a run that is killed measures again
        scratch.unlink()
    task.times = path


def _is_of_recipe(task: Task, path: Path) -> bool:
    """Whether the run has measured its table already, for the budget that the recipe has now."""
    if not path.is_file():
        return False
    stated, way_out = task.recipe.budget, f"delete it and continue with {task.run.resume_command}"
    try:
        table = read_table(path)
    except InputError as error:
        raise InputError(f"{error}; {way_out}") from error
    target = stated.target or LatencyTarget()
    options = {k: v for k, v in vars(target).items() if v is not None}
    same_target = target.table is not None or table.target == options
    return same_target and table.chosen is not None and table.chosen.get("asked") == stated.latency


def _wait_for(path: Path) -> None:
    began = time.monotonic()
    while not path.is_file():
        if time.monotonic() - began > _WAIT:
            raise DetpruneError(f"the first process has not written {path} in {_WAIT:g} seconds")
        time.sleep(0.2)


def latency_result(task: Task, dense: nn.Module, small: nn.Module) -> LatencyResult | None:
    """The time of the final network beside its prediction; None for other budgets.

    It is measured on the target of the recipe, if that is here, both networks in turn. A run does not fail by it.
    """
    stated = task.recipe.budget
    if stated.latency is None or task.times is None:
        return None
    target, chosen = stated.target or LatencyTarget(), read_table(task.times).chosen or {}
    found = LatencyResult(
        target=str(target),
        asked=stated.latency,
        predicted=chosen.get("predicted"),
        before_training=chosen.get("measured"),
    )
    channels = task.sparsity_set(dense)
    if target.table is not None or not isinstance(channels, CoupledChannels):
        return found
    try:
        subject = Subject.on(target, dense, channels, stated)
        times = network_times(target, [subject.deployed(), deployed(small)], subject.inputs)
    except (DetpruneError, RuntimeError, OSError) as error:
        LOGGER.warning("the latency of the result was not measured: %s", error)
        return found
    return found.model_copy(
        update={
            "measured": times.ratios()[1],
            "dense_ms": times.median(0),
            "pruned_ms": times.median(1),
        }
    )
