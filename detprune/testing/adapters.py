"""The contract of an adapter."""

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detprune.errors import InputError
from detprune.run.adapter import Implementation
from detprune.run.directory import RunDirectory
from detprune.run.pipeline import run_stages
from detprune.run.recipe import Recipe, validate
from detprune.run.task import Task
from detprune.testing.requirement import require


def check_adapter(implementation: Implementation, values: Mapping[str, Any], folder: Path) -> None:
    """Check what the pipeline relies on, by running a recipe three times; the recipe should take seconds.

    - The recipe is read, and one with a key that it does not have is refused.
    - ``evaluate`` and the loss probe change neither the network nor a random state, and say the same twice.
    - The run ends with a proof. A second run, and one that goes on after the dense stage, give the same bits.

    Args:
        implementation: implementation of the adapter.
        values: a recipe's keys and values, with few epochs and little data.
        folder: an empty folder for the runs.

    Raises:
        AssertionError: with what does not hold.
    """
    recipe = validate(implementation.recipe, dict(values))
    try:
        validate(implementation.recipe, {**values, "no_such_key": 1})
    except InputError:
        pass
    else:
        raise AssertionError("a recipe with the key no_such_key is accepted; derive it from Recipe")
    task = implementation.task(recipe, RunDirectory.open(folder / "probe", recipe, resume=False))
    _check_measuring(task)
    weights = {
        name: _run(implementation, recipe, folder / name, resume=False)
        for name in ("first", "second")
    }
    shutil.copytree(folder / "first", folder / "resumed")
    progress = folder / "resumed" / "progress.json"
    finished = json.loads(progress.read_text(encoding="utf-8"))
    progress.write_text(json.dumps({"dense": finished["dense"]}), encoding="utf-8")
    for stage in ("constrained", "retrain"):  # the checkpoints of these stages
        shutil.rmtree(folder / "resumed" / "checkpoints" / stage, ignore_errors=True)
    weights["resumed"] = _run(implementation, recipe, folder / "resumed", resume=True)
    for name in ("second", "resumed"):
        for key, value in weights["first"].items():
            require(
                torch.equal(value, weights[name][key]),
                f"{key} of the {name} run differs from the first run's: training has to depend on the recipe alone",
            )


def _run(
    implementation: Implementation, recipe: Recipe, folder: Path, resume: bool
) -> dict[str, torch.Tensor]:
    run = RunDirectory.open(folder, recipe, resume=resume)
    task = implementation.task(recipe, run)
    summary = run_stages(task, recipe, run, "check_adapter")
    require(summary is not None and summary.verified is not None, "the run ended without a proof")
    return task.load_network(run.pruned).state_dict()


def _check_measuring(task: Task) -> None:
    model = task.build_model()
    first, probe = task.evaluate(model), task.loss_probe(model, 8)
    require(task.metric in first, f"evaluate() returns {sorted(first)}, without {task.metric}")
    for metric in task.metrics:
        value = first.get(metric.name, 0.0)
        require(
            0 <= value <= 1 if metric.per_cent else math.isfinite(value),
            f"{metric.name} is {value}, and has to be "
            + (
                "a share from 0 to 1; a metric of another unit is Metric(…, per_cent=False)"
                if metric.per_cent
                else "finite"
            ),
        )
    _check_untouched(model, "evaluate()", lambda: dict(task.evaluate(model)), dict(first))
    _check_untouched(model, "the loss probe", probe, probe())


def _check_untouched(
    model: nn.Module, what: str, measure: Callable[[], object], before: object
) -> None:
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    training, state = model.training, torch.get_rng_state()
    found = measure()
    require(found == before, f"{what} says {found} and said {before} of the same network")
    require(torch.equal(torch.get_rng_state(), state), f"{what} has drawn random numbers")
    require(model.training == training, f"{what} has left the network in another mode")
    for name, value in model.state_dict().items():
        require(torch.equal(value, weights[name]), f"{what} has changed {name}")
