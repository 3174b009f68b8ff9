"""Measurement of a checkpoint outside a run, for ``detprune evaluate``."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import typer
from torch import nn

from detprune.networks.finite import check_finite
from detprune.run.recipe import Recipe, override, read_yaml, validate
from detprune.run.task import NetworkTask, starting_network

RecipeFile = Annotated[Path, typer.Argument(help="Recipe that names network and data.")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Weights to measure; the recipe's own by default.")
]
R = TypeVar("R", bound=Recipe)


def read_recipe(kind: type[R], path: Path, assignments: list[str] | None) -> R:
    """The recipe in a file, with assignments of the command line."""
    return validate(kind, override(read_yaml(path), assignments or []))


def load_for_evaluation(task: NetworkTask, checkpoint: Path | None) -> nn.Module:
    """The task's network with a checkpoint's weights, or with the recipe's own.

    Raises:
        InputError: the recipe's own hold NaN or infinities.
        NonFiniteError: those of the checkpoint do.
    """
    if checkpoint is None:
        return starting_network(task)
    model = task.load_network(checkpoint)
    check_finite(model, f"the network in {checkpoint}")
    return model


def evaluation(task: NetworkTask, model: nn.Module) -> dict[str, Any]:
    """Metrics of a network on the task's test data, and how many of its weights are zero."""
    metrics = dict(task.evaluate(model))
    numel = sum(p.numel() for p in model.parameters())
    nonzero = sum(int(torch.count_nonzero(p)) for p in model.parameters())
    return {
        "model": task.model_name,
        "data": task.data_name,
        "metric": task.metric,
        "value": metrics[task.metric],
        "metrics": metrics,
        "model_sparsity": 1 - nonzero / numel,
        "model_compression": numel / nonzero if nonzero else None,
    }
