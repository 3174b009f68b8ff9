"""``detprune evaluate classification``: measure any checkpoint of a recipe's network."""

import json
from pathlib import Path
from typing import Annotated

import typer

from detprune.evaluation import evaluation, load_for_evaluation
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
    model = load_for_evaluation(task, checkpoint)
    typer.echo(json.dumps(evaluation(task, model)))
