"""``detprune evaluate classification``: measure any checkpoint of a recipe's network."""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from detprune.recipe import override, read_yaml, validate
from detprune.rundir import RunDirectory
from detprune_classification.recipe import ClassificationRecipe
from detprune_classification.task import ClassificationTask


def evaluate(
    recipe: Annotated[Path, typer.Argument(help="Recipe that names model and data.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights to measure; the recipe's own without it.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe."),
    ] = None,
) -> None:
    """Top-1 accuracy and sparsity of a classifier, as JSON."""
    values = override(read_yaml(recipe), assignments or [])
    task = ClassificationTask(validate(ClassificationRecipe, values), RunDirectory(Path()))
    model = task.build_model()
    if checkpoint is not None:
        task.load_weights(model, checkpoint)
    numel = sum(p.numel() for p in model.parameters())
    nonzero = sum(int(torch.count_nonzero(p)) for p in model.parameters())
    result = {
        "model": task.model_name,
        "data": task.data_name,
        "metric": task.metric,
        "value": task.evaluate(model)[task.metric],
        "model_sparsity": 1 - nonzero / numel,
        "model_compression": numel / nonzero if nonzero else None,
    }
    typer.echo(json.dumps(result))
